package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/term"
)

// version is the release of ds; a release build sets it with -ldflags -X.
var version = "0.1.0-dev"

type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Built    string `json:"built"`
	Platform string `json:"platform"`
	Go       string `json:"go"`
	ABI      string `json:"abi"`
}

// versionCommand prints the version; the first line is the original's, scripts read it.
func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Version of ds and of the host ABI", Args: wants(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			v := buildInfo()
			if a.g.jq != "" || a.cfg.String("ui.format") != "table" {
				return a.rows(term.ObjectOf([]string{"version", "commit", "built", "platform", "go", "abi=HOST ABI"}, v))
			}
			_, err := fmt.Fprintf(a.std.out, "ds version %s\n  commit: %s   built: %s   %s %s   host ABI %s\n",
				v.Version, v.Commit, v.Built, v.Platform, v.Go, v.ABI)
			return err
		},
	}
}

func buildInfo() versionInfo {
	v := versionInfo{version, "unknown", "unknown", runtime.GOOS + "/" + runtime.GOARCH, runtime.Version(), hostabi.ABI}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value[:min(len(s.Value), 12)]
		case "vcs.time":
			v.Built = s.Value
		}
	}
	return v
}
