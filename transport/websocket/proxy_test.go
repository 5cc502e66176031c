package websocket_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"
)

// A proxy is an HTTP proxy that knows CONNECT only, and can cut all lines without anybody noticing.
type proxy struct {
	url  *url.URL
	used sync.WaitGroup

	over chan struct{} // closed with the test

	mu     sync.Mutex // guards all below
	conns  []net.Conn
	silent bool
	part   int           // how many bytes pass at a time, if not 0
	every  time.Duration // and when
	dials  int
}

func newProxy(tb testing.TB) *proxy {
	l, err := net.Listen("tcp", local)
	if err != nil {
		tb.Fatal(err)
	}
	p := &proxy{url: &url.URL{Scheme: "http", Host: l.Addr().String()}, over: make(chan struct{})}
	p.used.Go(func() { // ends with l
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if p.add(c) {
				p.used.Go(func() { p.serve(c) }) // ends with c
			}
		}
	})
	tb.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		close(p.over)
		for _, c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.used.Wait()
	})
	return p
}

// add closes c at the end. If that has come it does so at once, and returns false.
func (p *proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.over:
		c.Close()
		return false
	default:
		p.conns = append(p.conns, c)
		return true
	}
}

func (p *proxy) serve(c net.Conn) {
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil {
		c.Close()
		return
	}
	server, err := net.Dial("tcp", req.Host)
	if err != nil || req.Method != http.MethodConnect {
		io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		c.Close()
		return
	}
	if !p.add(server) {
		return
	}
	p.mu.Lock()
	p.dials++
	p.mu.Unlock()
	io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
	var both sync.WaitGroup
	both.Go(func() { p.pass(server, r, c) })
	both.Go(func() { p.pass(c, server, server) })
	both.Wait()
	if !p.isSilent() { // otherwise they stay as they are to the end of the test
		c.Close()
		server.Close()
	}
}

// pass copies until one side closes, or until silence.
func (p *proxy) pass(to net.Conn, from io.Reader, origin net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if p.isSilent() {
			return
		}
		if n > 0 {
			if werr := p.write(to, buf[:n]); werr != nil {
				err = werr
			}
		}
		if p.isSilent() {
			return
		}
		if err != nil { // what has come is on its way
			to.(*net.TCPConn).CloseWrite()
			origin.(*net.TCPConn).CloseRead()
			return
		}
	}
}

// write writes to to, in parts when it drips.
func (p *proxy) write(to net.Conn, b []byte) error {
	p.mu.Lock()
	part, every := p.part, p.every
	p.mu.Unlock()
	if part == 0 {
		_, err := to.Write(b)
		return err
	}
	for b := range slices.Chunk(b, part) {
		select {
		case <-time.After(every):
		case <-p.over:
		}
		if _, err := to.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// drip lets only so many bytes pass at each interval from now on.
func (p *proxy) drip(part int, every time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.part, p.every = part, every
}

func (p *proxy) isSilent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.silent
}

func (p *proxy) silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = true
	for _, c := range p.conns {
		c.SetDeadline(time.Now()) // ends pass
	}
}

func (p *proxy) dialled() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dials
}
