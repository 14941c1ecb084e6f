package native

import (
	"context"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// Check says whether the program could start here, from its first bytes: another platform or no program at
// all is PLATFORM_UNSUPPORTED. p.Program is open; nothing is run.
func (b *Backend) Check(_ context.Context, p *plugin.Installed) error {
	r := &run{b: b, p: p}
	img, err := sniff(p.Program.File)
	if err != nil {
		return r.fail(hostabi.ReasonStartFailed, "%s: %w", p.Program.Path, err)
	}
	r.image = img
	return r.checkPlatform()
}
