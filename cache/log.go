package cache

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// A log record, cache.md section 4: 80 bytes, little endian, appended by one write.
const (
	recordLen   = 80
	recordMagic = "DSL1"

	recordPut     = 1
	recordDelete  = 2
	recordLease   = 3
	recordRelease = 4
)

// sum is a raw SHA-256.
type sum [32]byte

func sumOf(d hostabi.Digest) (b sum) {
	_, _ = hex.Decode(b[:], []byte(d.Hex())) // digests are checked at the surface
	return b
}

func (b sum) digest() hostabi.Digest { return hostabi.DigestFromSum(b[:]) }

type record struct {
	kind    byte
	view    uint16
	digest  sum
	size    int64 // of the blob
	disk    int64 // of both files
	time    int64 // unix ns
	expires int64 // unix s, 0 = never
}

// castagnoli is a constant table.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r *record) encode() []byte {
	b := make([]byte, recordLen)
	le := binary.LittleEndian
	copy(b, recordMagic)
	b[4] = r.kind
	le.PutUint16(b[6:], r.view)
	copy(b[8:], r.digest[:])
	for i, v := range [...]int64{r.size, r.disk, r.time, r.expires} {
		le.PutUint64(b[40+8*i:], uint64(v)) // bits matter, not the sign
	}
	le.PutUint32(b[76:], crc32.Checksum(b[:76], castagnoli))
	return b
}

// readRecords calls fn for each good record of b and skips what is damaged. It returns how many bytes are
// done with; a rest that may be the start of a record is not.
func readRecords(b []byte, fn func(*record)) (done int64) {
	le := binary.LittleEndian
	at := 0
	for {
		i := bytes.Index(b[at:], []byte(recordMagic))
		if i < 0 {
			return int64(max(at, len(b)-len(recordMagic)+1))
		}
		if at += i; len(b)-at < recordLen {
			return int64(at)
		}
		p := b[at : at+recordLen]
		if le.Uint32(p[76:]) != crc32.Checksum(p[:76], castagnoli) {
			at++
			continue
		}
		r := record{kind: p[4], view: le.Uint16(p[6:])}
		copy(r.digest[:], p[8:])
		for i, v := range [...]*int64{&r.size, &r.disk, &r.time, &r.expires} {
			*v = int64(le.Uint64(p[40+8*i:])) // bits matter, not the sign
		}
		fn(&r)
		at += recordLen
	}
}

func unixSeconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
