package hostabi_test

import (
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for in, want := range map[string]time.Duration{
		"0": 0, "10m": 10 * time.Minute, "7d": 7 * day, "1d12h": 36 * time.Hour, "2w": 14 * day, "1w1d1s": 8*day + time.Second, "1.5h": 90 * time.Minute,
		"": -1, "5": -1, "-1s": -1, "+1s": -1, "d": -1, "1d5": -1, "1d-1h": -1, "1.5d": -1, "1h1d": -1, "99999999999w": -1, "x": -1,
	} {
		got, err := hostabi.ParseDuration(in)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: got %v %v, want %v", in, got, err, want)
		}
	}
}

func TestSizeText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 95630131: "91.2 MiB", 3 << 40: "3.0 TiB", 1<<63 - 1: "8.0 EiB"} {
		if got := hostabi.SizeText(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
