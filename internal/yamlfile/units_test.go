package yamlfile

import (
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "12": 12, "12B": 12, "1kb": 1000, "1KiB": 1024, "256MiB": 256 << 20, "1 GiB": 1 << 30, "2TB": 2e12, "8TIB": 8 << 40,
		"": -1, "x": -1, "-1": -1, "+1": -1, "1.5GB": -1, "1EB": -1, "9223372036854775807KiB": -1, "KiB": -1, "1i": -1, "1 2": -1,
	} {
		got, err := ParseSize(in)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: got %d %v, want %d", in, got, err, want)
		}
		if want >= 0 {
			if again, err := ParseSize(FormatSize(got)); err != nil || again != got {
				t.Errorf("%d is formatted as %q", got, FormatSize(got))
			}
		}
	}
	for n, want := range map[int64]string{1 << 30: "1GiB", 4 << 30: "4GiB", 1000: "1000", 3 << 19: "1536KiB", 0: "0"} {
		if got := FormatSize(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for in, want := range map[string]time.Duration{
		"0": 0, "10m": 10 * time.Minute, "7d": 7 * day, "1d12h": 36 * time.Hour, "2w": 14 * day, "1w1d1s": 8*day + time.Second, "1.5h": 90 * time.Minute,
		"": -1, "5": -1, "-1s": -1, "+1s": -1, "d": -1, "1d5": -1, "1d-1h": -1, "1.5d": -1, "1h1d": -1, "99999999999w": -1, "x": -1,
	} {
		got, err := ParseDuration(in)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: got %v %v, want %v", in, got, err, want)
		}
	}
}
