package yamlfile

import "testing"

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
