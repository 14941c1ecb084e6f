package yamlfile

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

var sizeUnits = map[string]int64{
	"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}

// ParseSize reads a size in bytes as files and flags write it: an integer with an optional unit B, KB MB GB TB
// (powers of 1000) or KiB MiB GiB TiB (powers of 1024), case ignored.
func ParseSize(s string) (int64, error) {
	number := strings.TrimRight(s, "bBkKmMgGtTiI ")
	unit, ok := sizeUnits[strings.ToLower(strings.TrimLeft(s[len(number):], " "))]
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || n < 0 || !all(number, digits) {
		return 0, fmt.Errorf("%q is not a size such as 512KiB or 1GB", clip(s))
	}
	if n > math.MaxInt64/unit {
		return 0, fmt.Errorf("size %q is too large", clip(s))
	}
	return n * unit, nil
}

// FormatSize is the shortest text that ParseSize reads as n and that loses nothing.
func FormatSize(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n != 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}
