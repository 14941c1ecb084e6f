// Command hello is the smallest program on the SDK: its size is tested.
package main

import (
	"context"
	"fmt"

	"github.com/delivery-station/ds/pkg/client"
)

func main() {
	client.Main(client.App{Name: "hello", Commands: []client.Command{{
		Name: "greet", Args: []client.Arg{{Name: "who", Required: true}},
		Run: func(_ context.Context, in *client.Invocation) error {
			_, err := fmt.Fprintln(in.Stdout, "Hello", in.Args[0])
			return err
		},
	}}})
}
