// Command kit runs one case of the conformance kit, the first argument, over the carrier that the host gave
// this program: frames natively, imports as a module. It prints the result.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/delivery-station/ds/hostabi/hosttest/cases"
	"github.com/delivery-station/ds/pkg/client"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "kit:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("want the name of one case")
	}
	c, err := client.NewClient()
	if err != nil {
		return err
	}
	s, err := c.Session()
	if err != nil {
		return err
	}
	if _, err := fmt.Println(cases.Run(context.Background(), s, os.Args[1])); err != nil {
		return err
	}
	return c.Close()
}
