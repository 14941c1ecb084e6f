package native_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/delivery-station/ds/runtime/native"
)

func elfHeader(class, data, abi byte, kind, machine uint16) []byte {
	b := make([]byte, 64)
	copy(b, "\x7fELF")
	b[4], b[5], b[6], b[7] = class, data, 1, abi
	var o binary.ByteOrder = binary.LittleEndian
	if data == 2 {
		o = binary.BigEndian
	}
	o.PutUint16(b[16:], kind)
	o.PutUint16(b[18:], machine)
	return b
}

func pe(machine uint16) []byte {
	b := make([]byte, 0x100)
	copy(b, "MZ")
	b[0x3c] = 0x80
	copy(b[0x80:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[0x84:], machine)
	return b
}

func universal(cpus ...uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0xca, 0xfe, 0xba, 0xbe}, uint32(len(cpus)))
	for _, c := range cpus {
		b = binary.BigEndian.AppendUint32(b, c)
		b = append(b, make([]byte, 16)...)
	}
	return b
}

func TestMismatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, goos, goarch string
		b                  []byte
		want               string
	}{
		{"ELF here", "linux", "amd64", elfHeader(2, 1, 0, 2, 62), ""},
		{"ELF PIE", "linux", "amd64", elfHeader(2, 1, 3, 3, 62), ""},
		{"ELF arm64", "linux", "amd64", elfHeader(2, 1, 0, 2, 183), "is built for linux/arm64, not linux/amd64"},
		{"ELF 386", "linux", "amd64", elfHeader(1, 1, 0, 2, 3), "is built for linux/386, not linux/amd64"},
		{"ELF x32", "linux", "amd64", elfHeader(1, 1, 0, 2, 62), "is built for linux/x86_64, not linux/amd64"},
		{"ELF arm", "linux", "arm64", elfHeader(1, 1, 0, 2, 40), "is built for linux/arm, not linux/arm64"},
		{"ELF s390x", "linux", "s390x", elfHeader(2, 2, 0, 2, 22), ""},
		{"ELF ppc64le", "linux", "ppc64le", elfHeader(2, 1, 0, 2, 21), ""},
		{"ELF ppc64", "linux", "ppc64le", elfHeader(2, 2, 0, 2, 21), "is built for linux/ppc64, not linux/ppc64le"},
		{"ELF riscv64", "linux", "riscv64", elfHeader(2, 1, 0, 2, 243), ""},
		{"ELF loong64", "linux", "loong64", elfHeader(2, 1, 0, 2, 258), ""},
		{"ELF freebsd", "linux", "amd64", elfHeader(2, 1, 9, 2, 62), "is built for freebsd/amd64, not linux/amd64"},
		{"ELF object", "linux", "amd64", elfHeader(2, 1, 0, 1, 62), "is no program or #! script"},
		{"ELF cut", "linux", "amd64", []byte("\x7fELF\x02"), "is no program or #! script"},
		{"PE", "windows", "amd64", pe(0x8664), ""},
		{"PE elsewhere", "linux", "arm64", pe(0xaa64), "is built for windows/arm64, not linux/arm64"},
		{"PE 386", "windows", "amd64", pe(0x14c), "is built for windows/386, not windows/amd64"},
		{"PE strange", "windows", "amd64", pe(1), "is built for windows/machine 0x1, not windows/amd64"},
		{"PE cut", "windows", "amd64", []byte("MZ"), "is no program or #! script"},
		{"Mach-O", "darwin", "arm64", []byte{0xcf, 0xfa, 0xed, 0xfe, 0x0c, 0, 0, 1}, ""},
		{"Mach-O 32", "darwin", "arm64", []byte{0xce, 0xfa, 0xed, 0xfe, 7, 0, 0, 0}, "is built for darwin/386, not darwin/arm64"},
		{"universal", "darwin", "arm64", universal(0x01000007, 0x0100000c), ""},
		{"universal elsewhere", "linux", "amd64", universal(0x01000007, 0x0100000c), "is built for darwin/amd64,arm64, not linux/amd64"},
		{"Java class", "linux", "amd64", []byte{0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 52}, "is no program or #! script"},
		{"script", "linux", "amd64", []byte("#!/bin/sh"), ""},
		{"script on windows", "windows", "amd64", []byte("#!"), "is a #! script, which windows does not run"},
		{"text", "linux", "amd64", []byte("hello, world\n"), "is no program or #! script"},
		{"nothing", "linux", "amd64", nil, "is no program or #! script"},
	} {
		got, err := native.Mismatch(c.b, c.goos, c.goarch)
		if got != c.want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

func FuzzMismatch(f *testing.F) {
	for _, b := range [][]byte{elfHeader(2, 1, 0, 2, 62), pe(0x8664), universal(0x0100000c), []byte("#! /bin/sh -e\n"), nil} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := native.Mismatch(b, "linux", "amd64"); err != nil {
			t.Error(err)
		}
	})
}

func TestWithoutUser(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, value, want string }{
		{"HTTPS_PROXY", "http://u:p@proxy:3128", "http://proxy:3128"},
		{"http_proxy", "u:p/w@x@proxy:3128/", "proxy:3128/"},
		{"all_proxy", "socks5://proxy:1080", "socks5://proxy:1080"},
		{"HTTP_PROXY", "http://u:p/w@proxy", "http://proxy"},
		{"NO_PROXY", "a@b,c", "a@b,c"},
		{"SSL_CERT_FILE", "/a@b", "/a@b"},
	} {
		if got := native.WithoutUser(c.name, c.value); got != c.want {
			t.Errorf("%s=%s: got %q, want %q", c.name, c.value, got, c.want)
		}
	}
}

func TestShort(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		10 * time.Minute: "10m", 90 * time.Minute: "1h30m", time.Hour: "1h", 2500 * time.Millisecond: "2.5s", 300 * time.Millisecond: "300ms",
		10 * time.Second: "10s", 40*time.Second + 20*time.Minute: "20m40s", -time.Second: "0s",
	} {
		if got := native.Short(d); got != want {
			t.Errorf("%d: got %q, want %q", d, got, want)
		}
	}
}
