package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
)

func (a *app) pluginPackage() *cobra.Command {
	var f packFlags
	var out string
	c := &cobra.Command{
		Use: "package [DIR] -o FILE.tar", Short: "Pack a plugin directory into an OCI layout in a tar", Args: wants(0, 1, "a plugin directory"),
		Long: "Pack a plugin directory. The same directory gives the same bytes; the only time in it is SOURCE_DATE_EPOCH, or 0. Push it\n" +
			"with ds plugin push FILE.tar REF.",
		Example: "  ds plugin package ./hello -o hello.tar",
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := a.wd
			if len(args) > 0 {
				dir = a.absolute(args[0])
			}
			if out == "" {
				return hostabi.Errorf(hostabi.ReasonUsage, "-o FILE.tar is required")
			}
			return a.pack(cmd.Context(), dir, out, f)
		},
	}
	f.add(c)
	c.Flags().StringVarP(&out, "output", "o", "", "file to write")
	return c
}

func (a *app) pack(ctx context.Context, dir, out string, f packFlags) error {
	p, m, err := a.build(ctx, dir, f)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }() // temporary files
	if err := replaceFile(a.absolute(out), func(w io.Writer) error { return p.WriteTar(ctx, w) }); err != nil {
		return err
	}
	return a.pushed(out, &outgoing{root: p.Root, name: string(m.Name), version: m.Version}, "")
}
