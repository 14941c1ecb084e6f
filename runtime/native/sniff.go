package native

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/delivery-station/ds/hostabi"
)

// image is what the first bytes of a program say about it.
type image struct {
	script bool
	interp string      // of a script: the path after #!
	os     string      // GOOS, empty if the format does not say
	archs  []string    // GOARCH words; several in a universal binary
	elf    io.ReaderAt // for the loader, read only when a start failed
}

// sniff reads the header of a program. An image without os, archs and script is no program.
func sniff(r io.ReaderAt) (image, error) {
	var h [4096]byte
	n, err := r.ReadAt(h[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return image{}, err
	}
	b := h[:n]
	switch {
	case bytes.HasPrefix(b, []byte("#!")):
		return image{script: true, interp: interpreter(b)}, nil
	case bytes.HasPrefix(b, []byte(elf.ELFMAG)):
		img := sniffELF(b)
		img.elf = r
		return img, nil
	case bytes.HasPrefix(b, []byte("MZ")):
		return sniffPE(b), nil
	}
	return sniffMachO(b), nil
}

// interpreter is the path after #!; the kernel looks at the first 256 bytes.
func interpreter(b []byte) string {
	line, _, _ := bytes.Cut(b[2:min(len(b), 256)], []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) == 0 {
		return ""
	}
	return words[0]
}

func sniffELF(b []byte) image {
	if len(b) < 20 {
		return image{}
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(b[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	if t := elf.Type(order.Uint16(b[16:])); t != elf.ET_EXEC && t != elf.ET_DYN {
		return image{}
	}
	img := image{os: "linux"}
	switch elf.OSABI(b[elf.EI_OSABI]) {
	case elf.ELFOSABI_FREEBSD:
		img.os = "freebsd"
	case elf.ELFOSABI_NETBSD:
		img.os = "netbsd"
	case elf.ELFOSABI_OPENBSD:
		img.os = "openbsd"
	case elf.ELFOSABI_SOLARIS:
		img.os = "solaris"
	}
	wide := elf.Class(b[elf.EI_CLASS]) == elf.ELFCLASS64
	img.archs = []string{elfArch(elf.Machine(order.Uint16(b[18:])), wide, order == binary.LittleEndian)}
	return img
}

func elfArch(m elf.Machine, wide, little bool) string {
	switch {
	case m == elf.EM_X86_64 && wide:
		return "amd64"
	case m == elf.EM_386:
		return "386"
	case m == elf.EM_AARCH64:
		return "arm64"
	case m == elf.EM_ARM:
		return "arm"
	case m == elf.EM_RISCV && wide:
		return "riscv64"
	case m == elf.EM_S390:
		return "s390x"
	case m == elf.EM_LOONGARCH:
		return "loong64"
	case m == elf.EM_PPC64 && little:
		return "ppc64le"
	case m == elf.EM_PPC64:
		return "ppc64"
	}
	return strings.ToLower(strings.TrimPrefix(m.String(), "EM_")) // x32 too: amd64's machine in 32 bits
}

func sniffPE(b []byte) image {
	if len(b) < 0x40 {
		return image{}
	}
	at := int64(binary.LittleEndian.Uint32(b[0x3c:]))
	if at+6 > int64(len(b)) || !bytes.HasPrefix(b[at:], []byte("PE\x00\x00")) {
		return image{}
	}
	img := image{os: "windows"}
	switch m := binary.LittleEndian.Uint16(b[at+4:]); m { // PE format, "Machine Types"
	case 0x8664:
		img.archs = []string{"amd64"}
	case 0xaa64:
		img.archs = []string{"arm64"}
	case 0x14c:
		img.archs = []string{"386"}
	default:
		img.archs = []string{fmt.Sprintf("machine %#x", m)}
	}
	return img
}

// sniffMachO reads thin 64-bit and universal headers (mach-o/loader.h, mach-o/fat.h).
func sniffMachO(b []byte) image {
	if len(b) < 8 {
		return image{}
	}
	switch {
	case binary.LittleEndian.Uint32(b) == 0xfeedfacf:
		return image{os: "darwin", archs: []string{machArch(binary.LittleEndian.Uint32(b[4:]))}}
	case binary.LittleEndian.Uint32(b) == 0xfeedface:
		return image{os: "darwin", archs: []string{"386"}}
	case binary.BigEndian.Uint32(b) != 0xcafebabe:
		return image{}
	}
	img, n := image{os: "darwin"}, binary.BigEndian.Uint32(b[4:])
	if n == 0 || n > 16 { // the same magic begins a Java class, whose version is above 40
		return image{}
	}
	for at := 8; n > 0 && at+20 <= len(b); n, at = n-1, at+20 {
		img.archs = append(img.archs, machArch(binary.BigEndian.Uint32(b[at:])))
	}
	return img
}

func machArch(cpu uint32) string {
	switch cpu {
	case 0x01000007:
		return "amd64"
	case 0x0100000c:
		return "arm64"
	}
	return fmt.Sprintf("cpu %#x", cpu)
}

// loader is the dynamic loader that an ELF program names, empty if none.
func (i image) loader() string {
	if i.elf == nil {
		return ""
	}
	f, err := elf.NewFile(i.elf)
	if err != nil {
		return ""
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return ""
		}
		return string(bytes.TrimRight(b, "\x00"))
	}
	return ""
}

// checkPlatform refuses a program of another system or processor before it is started.
func (r *run) checkPlatform() error {
	if problem := r.image.mismatch(runtime.GOOS, runtime.GOARCH); problem != "" {
		return r.fail(hostabi.ReasonPlatformUnsupported, "%s", problem)
	}
	return nil
}

// mismatch says why the image cannot run on goos and goarch; empty = it can.
func (i image) mismatch(goos, goarch string) string {
	if i.script {
		if goos == "windows" {
			return "is a #! script, which windows does not run"
		}
		return ""
	}
	if len(i.archs) == 0 {
		return "is no program or #! script"
	}
	for _, a := range i.archs {
		if i.os == goos && a == goarch {
			return ""
		}
	}
	return fmt.Sprintf("is built for %s/%s, not %s/%s", i.os, strings.Join(i.archs, ","), goos, goarch)
}
