package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// dataHelp is what commands that take data say about it.
const dataHelp = `DATA is the text itself, @FILE for what is in a file, @- for all of standard
input, or nothing for a message without data.`

// readData returns what an argument stands for as the data of one message, which may have most
// bytes.
func readData(cmd *cobra.Command, arg string, most int) ([]byte, error) {
	name, isFile := strings.CutPrefix(arg, "@")
	if !isFile {
		return sized([]byte(arg), most)
	}
	in := cmd.InOrStdin()
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, int64(most)+1))
	if err != nil {
		return nil, err
	}
	return sized(data, most)
}

func sized(data []byte, most int) ([]byte, error) {
	if len(data) > most {
		return nil, errTooLarge(most)
	}
	return data, nil
}

func errTooLarge(most int) error {
	return fmt.Errorf("a message may have %d bytes; --max-size, here and at the others, changes that", most)
}

// splitter reads the parts of a text that end with a delimiter. What follows the last delimiter is
// a part too, unless it is empty.
type splitter struct {
	r         *bufio.Reader
	delimiter byte
	most      int
}

func newSplitter(r io.Reader, delimiter byte, most int) *splitter {
	return &splitter{r: bufio.NewReaderSize(r, 64<<10), delimiter: delimiter, most: most}
}

// next returns a part without its delimiter, in memory of its own, or io.EOF after the last.
func (s *splitter) next() ([]byte, error) {
	part, err := s.r.ReadSlice(s.delimiter)
	if errors.Is(err, bufio.ErrBufferFull) {
		return s.long(part)
	}
	return s.end(bytes.Clone(part), err)
}

// long goes on with a part that is longer than the reader's buffer.
func (s *splitter) long(part []byte) ([]byte, error) {
	all := bytes.Clone(part)
	for {
		part, err := s.r.ReadSlice(s.delimiter)
		all = append(all, part...)
		switch {
		case len(all) > s.most+1:
			return nil, errTooLarge(s.most)
		case !errors.Is(err, bufio.ErrBufferFull):
			return s.end(all, err)
		}
	}
}

func (s *splitter) end(part []byte, err error) ([]byte, error) {
	switch {
	case err == nil:
		part = part[:len(part)-1]
	case !errors.Is(err, io.EOF) || len(part) == 0:
		return nil, err
	}
	return sized(part, s.most)
}
