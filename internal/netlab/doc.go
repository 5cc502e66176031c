// Package netlab builds small networks for tests: hosts on bridges, each host a network namespace
// of Linux, in which programs run as processes of their own.
//
//	lab := netlab.New(t) // skips the test where that is not possible
//	lan := lab.Bridge()
//	a, b := lab.Host(lan), lab.Host(lan)
//	p := a.Start(nil, os.Args[0], "-test.run=^$") // the test binary, told by its environment what to be
//	p.Expect("ready")
//	lan.Unplug(b)
//
// Nothing of it can be seen from outside: what is sent in a lab stays in it. When the test ends the
// processes are killed and the namespaces are deleted; those of a test run that was killed itself
// are deleted by the next.
//
// Hosts can reach each other by IPv4 and IPv6 as soon as they are made. There is no default route.
// Multicast goes to the network of eth0, unless a socket chooses another.
//
// It needs root and the program ip, of iproute2. Alone does without root where the system lets
// users have namespaces.
package netlab
