// Command gravbus is the command line of the message bus.
package main

func main() {}
