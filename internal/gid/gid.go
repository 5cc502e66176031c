// Package gid tells goroutines apart.
//
// The bus needs to know one thing that Go keeps to itself: whether a call comes from inside a
// handler. A Disconnect called from a handler must not wait for that handler to return, and a Send
// that waits inside a handler must be seen as that handler waiting, or cycles could not be told
// from slow pods. Only identity is used, and only to decide whom to wait for. What is noted under a
// goroutine's identity (that it drains a mailbox, or waits) is taken back before it ends.
package gid
