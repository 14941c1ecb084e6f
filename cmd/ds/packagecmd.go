package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin/publish"
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
	if err := writeTar(ctx, p, a.absolute(out)); err != nil {
		return err
	}
	return a.pushed(out, &outgoing{root: p.Root, name: string(m.Name), version: m.Version}, nil)
}

// writeTar puts the tar in place as a whole or not at all.
func writeTar(ctx context.Context, p *publish.Package, name string) (err error) {
	tmp := fmt.Sprintf("%s.%d.tmp", name, os.Getpid())
	w, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // a package is for others
	if err != nil {
		return hostabi.Errorf(hostabi.ReasonUsage, "%w", err)
	}
	err = p.WriteTar(ctx, w)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		_ = os.Remove(tmp) // the error says more
	}
	return err
}
