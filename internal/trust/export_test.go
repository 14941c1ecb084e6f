package trust

import "github.com/delivery-station/ds/internal/atomicfile"

// PinsOn is OpenPins on another file system.
func PinsOn(f atomicfile.FS, path string) *Pins { return &Pins{f, path} }
