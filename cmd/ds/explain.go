package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/docs"
	"github.com/delivery-station/ds/hostabi"
)

// explainCommand prints the page of an error number.
func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain CODE", Short: "What an error number means and what to do", Args: wants(1, 1, "one error number"), Example: "  ds explain DS2004",
		RunE: func(_ *cobra.Command, args []string) error {
			number := strings.ToUpper(args[0])
			if !strings.HasPrefix(number, "DS") {
				number = "DS" + number
			}
			page, err := docs.Error(number)
			if err != nil {
				return hostabi.Errorf(hostabi.ReasonUsage, "no error is called %q; numbers look like DS2004", args[0])
			}
			_, err = fmt.Fprint(a.std.out, page)
			return err
		},
	}
}
