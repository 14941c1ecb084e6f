// Command ds-cache manages the cache of ds, which all plugins of a user share: what is in it, what of that is damaged,
// what may go, what must stay, and how it travels to another machine. Its rights are one grant each for reading and
// for changing. The same source is the native plugin and, with GOOS=wasip1, cache.wasm.
package main

import (
	"github.com/delivery-station/ds/pkg/client"
)

// version is the version in plugin.yaml.
const version = "0.1.0"

// app is the whole program. plugin.yaml repeats its command tree, so that ds need not start it to print help.
func app() client.App {
	return client.App{
		Name:    "cache",
		Version: version,
		Summary: "Look into the cache of ds, verify it, prune it, pin and carry what is in it",
		Commands: []client.Command{
			statusCommand(), listCommand(), infoCommand(), verifyCommand(), pruneCommand(), gcCommand(), clearCommand(),
			pinCommand(), unpinCommand(), exportCommand(), importCommand(),
		},
	}
}

// digestArg is an argument that takes digests.
func digestArg(summary string, required bool) []client.Arg {
	return []client.Arg{{Name: "digest", Summary: summary, Required: required, Repeat: true}}
}

func dryRun() client.Flag {
	return client.Flag{Name: "dry-run", Summary: "only say what would go", Type: "bool"}
}
