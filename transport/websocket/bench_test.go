package websocket_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	gorilla "github.com/gorilla/websocket"

	"github.com/gravbus/gravbus/transport/websocket"
)

// A frames is one end of a connection that is measured.
type frames interface {
	ReadFrame([]byte) ([]byte, error)
	WriteFrame([]byte) error
}

// raw is what gorilla can do, used as well as it can be without this package.
type raw struct{ *gorilla.Conn }

func (r raw) WriteFrame(frame []byte) error { return r.WriteMessage(gorilla.BinaryMessage, frame) }

func (r raw) ReadFrame(buf []byte) ([]byte, error) {
	_, m, err := r.NextReader()
	if err != nil {
		return nil, err
	}
	for buf = buf[:0]; ; {
		n, err := m.Read(buf[len(buf):cap(buf)])
		if buf = buf[:len(buf)+n]; err != nil {
			return buf, nil // at the end, or the next call fails
		}
	}
}

func rawPair(b *testing.B) (dialled, accepted frames) {
	b.Helper()
	var pool sync.Pool
	const readBuffer = 4 << 10
	upgrader := gorilla.Upgrader{ReadBufferSize: readBuffer, WriteBufferSize: websocket.FrameSize, WriteBufferPool: &pool}
	got := make(chan *gorilla.Conn, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ws, err := upgrader.Upgrade(w, r, nil); err == nil {
			got <- ws
		}
	}))
	b.Cleanup(s.Close)
	dialer := gorilla.Dialer{ReadBufferSize: readBuffer, WriteBufferSize: websocket.FrameSize, WriteBufferPool: &pool}
	c, resp, err := dialer.Dial("ws"+strings.TrimPrefix(s.URL, "http"), nil)
	if err != nil {
		b.Fatal(err)
	}
	resp.Body.Close()
	d := <-got
	b.Cleanup(func() { c.Close(); d.Close() })
	return raw{c}, raw{d}
}

var kinds = []struct {
	name string
	pair func(*testing.B) (dialled, accepted frames)
}{
	{"raw", rawPair},
	{"gravbus", func(b *testing.B) (frames, frames) { return ownPair(b, websocket.Config{}) }},
	{"gravbus-tls", func(b *testing.B) (frames, frames) {
		return ownPair(b, websocket.Config{TLS: mesh().mutual("node")})
	}},
}

func ownPair(b *testing.B, cfg websocket.Config) (dialled, accepted frames) {
	c, d := pair(b, cfg)
	c.SetReadLimit(1 << 20)
	d.SetReadLimit(1 << 20)
	return c, d
}

// BenchmarkOneWay sends frames in one direction and waits until they are read.
func BenchmarkOneWay(b *testing.B) {
	for _, from := range []string{"dialled", "accepted"} {
		for _, size := range []int{200, 16 << 10, websocket.FrameSize} {
			for _, k := range kinds {
				b.Run(fmt.Sprintf("from=%s/size=%d/%s", from, size, k.name), func(b *testing.B) {
					w, r := k.pair(b)
					if from == "accepted" {
						w, r = r, w
					}
					b.SetBytes(int64(size))
					b.ReportAllocs()
					b.ResetTimer() // b.Loop does not tell the reader how many there will be
					read := make(chan error, 1)
					go func() { // ends with the last frame, or with the connection
						buf := make([]byte, 0, websocket.FrameSize)
						for range b.N {
							if _, err := r.ReadFrame(buf); err != nil {
								read <- err
								return
							}
						}
						read <- nil
					}()
					frame := make([]byte, size)
					for range b.N {
						if err := w.WriteFrame(frame); err != nil {
							b.Fatal(err)
						}
					}
					if err := <-read; err != nil {
						b.Fatal(err)
					}
				})
			}
		}
	}
}

// BenchmarkPingPong sends a frame there and back.
func BenchmarkPingPong(b *testing.B) {
	for _, k := range kinds {
		b.Run("size=200/"+k.name, func(b *testing.B) {
			c, d := k.pair(b)
			ended := make(chan struct{})
			go func() { // ends with an empty frame, or with the connection
				defer close(ended)
				buf := make([]byte, 0, 1024)
				for {
					frame, err := d.ReadFrame(buf)
					if err != nil || len(frame) == 0 || d.WriteFrame(frame) != nil {
						return
					}
				}
			}()
			frame, buf := make([]byte, 200), make([]byte, 0, 1024)
			b.ReportAllocs()
			for b.Loop() {
				if err := c.WriteFrame(frame); err != nil {
					b.Fatal(err)
				}
				if _, err := c.ReadFrame(buf); err != nil {
					b.Fatal(err)
				}
			}
			if err := c.WriteFrame(nil); err != nil {
				b.Fatal(err)
			}
			<-ended
		})
	}
}
