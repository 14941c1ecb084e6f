package publish

import (
	"context"
	"os"

	"github.com/delivery-station/ds/plugin"
)

// legacy adds each native program as the original DS wants it: a raw file, and the platform in annotations as
// well. It stands before the compressed form, which the original would write to disk as it is.
func (b *builder) legacy(context.Context) error {
	if !b.Legacy {
		return nil
	}
	return b.eachNative(func(p *plugin.OCIPlatform, title string, f *os.File) error {
		layer, err := b.raw(f, b.m.Run.Native.Platforms[p.OS+"/"+p.Architecture], plugin.LegacyBinaryType, title)
		if err != nil {
			return err
		}
		if err := b.child(plugin.LegacyBinaryType, nil, layer, p); err != nil {
			return err
		}
		b.index.Manifests[len(b.index.Manifests)-1].Annotations = map[string]string{"os": p.OS, "architecture": p.Architecture, "variant": p.Variant}
		return nil
	})
}
