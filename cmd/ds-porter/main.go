// Command ds-porter moves OCI artifacts: it pulls them into the cache of ds and writes their files, pushes
// files, copies between registries, and looks into artifacts. The host does every transfer with its own
// credentials; porter sees digests, sizes and the bytes of what it pulled. The same source is the native
// plugin and, with GOOS=wasip1, porter.wasm.
package main

import (
	"github.com/delivery-station/ds/pkg/client"
)

// version is the version in plugin.yaml.
const version = "0.1.0"

// app is the whole program. plugin.yaml repeats its command tree, so that ds need not start it to print help.
func app() client.App {
	return client.App{
		Name:     "porter",
		Version:  version,
		Summary:  "Pull, push, copy and inspect OCI artifacts",
		Commands: []client.Command{pullCommand(), pushCommand(), listCommand(), inspectCommand(), copyCommand(), bundleCommand()},
	}
}
