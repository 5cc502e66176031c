package result

import "time"

// Scaling is how peers fare with one processor, two, and so on.
type Scaling struct {
	Date       time.Time     `json:"date"`
	Command    string        `json:"command"`
	Machine    Machine       `json:"machine"`
	Quick      bool          `json:"quick"`
	Rounds     int           `json:"rounds"`
	Duration   time.Duration `json:"duration"`
	Processors []int         `json:"processors"` // GOMAXPROCS
	Peers      []Peer        `json:"peers"`
	Rows       []Row         `json:"rows"`
	Cells      [][]Cell      `json:"cells"` // by Processors
}
