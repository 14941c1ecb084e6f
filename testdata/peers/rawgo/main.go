// Command rawgo is R of the performance contract: a static Go program that prints hello. Built for wasip1 it
// is the Go guest.
package main

import "os"

func main() {
	if _, err := os.Stdout.WriteString("hello\n"); err != nil {
		os.Exit(1)
	}
}
