package mdns

import (
	"log"

	"github.com/hashicorp/mdns"
)

// servers answer questions, one server on each link. One goroutine at a time uses them.
type servers struct {
	zone    mdns.Zone
	log     *logger
	library *log.Logger
	open    map[string]*mdns.Server // by the state of the link
}

// set sees to it that there is a server on each of these links and on no other, and reports whether
// it opened or closed one. It is safe to call again and again: what failed is tried again.
func (s *servers) set(links []link) (changed bool) {
	wanted := make(map[string]bool, len(links))
	for _, k := range links {
		wanted[k.state] = true
	}
	for state, server := range s.open {
		if !wanted[state] {
			shutdown(server)
			delete(s.open, state)
			changed = true
		}
	}
	for _, k := range links {
		if s.open[k.state] != nil {
			continue
		}
		iface := k.iface
		server, err := mdns.NewServer(&mdns.Config{Zone: s.zone, Iface: &iface, Logger: s.library})
		if err != nil {
			s.log.warn("serve "+iface.Name, "mdns: no answers on an interface", "interface", iface.Name, "err", err)
			continue
		}
		s.log.clear("serve "+iface.Name, "mdns: answers on an interface again", "interface", iface.Name)
		s.open[k.state] = server
		changed = true
	}
	return changed
}

func (s *servers) close() { s.set(nil) }

// shutdown ends a server. It does not wait for the server's goroutines by itself, but closing a
// socket waits for those that read from it: they are past their last read, and end without another
// wait. What they still do, answering a question from a zone that has been withdrawn or failing to,
// reaches nobody.
func shutdown(server *mdns.Server) { _ = server.Shutdown() } // it never fails
