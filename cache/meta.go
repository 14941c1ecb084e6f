package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// metadata is metadata.json, cache.md section 3. Encoded, its first headLen bytes have fixed positions.
type metadata struct {
	V           int               `json:"v"`
	Stamp       string            `json:"stamp"`
	Expires     string            `json:"expires"`
	Digest      hostabi.Digest    `json:"digest"`
	Size        int64             `json:"size"`
	MediaType   string            `json:"media_type"`
	Created     string            `json:"created"`
	Durable     bool              `json:"durable"`
	Sources     []string          `json:"sources"`
	Annotations map[string]string `json:"annotations"`
}

const (
	headLen    = 114
	stampAt    = 16
	stampLen   = 64
	expiresAt  = 93
	timeLayout = "2006-01-02T15:04:05Z"
	never      = "9999-12-31T23:59:59Z"
	maxMeta    = 1 << 20 // bytes of metadata.json that are read

	headStart  = `{"v":1,"stamp":"`
	headMiddle = `","expires":"`
)

var errHead = errors.New("metadata.json has another form")

// head is what a get needs: no stamp means that the blob must be hashed.
type head struct {
	stamp   string
	expires time.Time // zero = never
}

// parseHead reads the first headLen bytes by position; errHead if they have another form.
func parseHead(b []byte) (head, error) {
	if len(b) < headLen {
		return head{}, errHead
	}
	stamp, expires := string(b[stampAt:stampAt+stampLen]), string(b[expiresAt:expiresAt+len(timeLayout)])
	if string(b[:stampAt]) != headStart || string(b[stampAt+stampLen:expiresAt]) != headMiddle || b[headLen-1] != '"' || !isHex(stamp) {
		return head{}, errHead
	}
	t, err := parseExpires(expires)
	if err != nil {
		return head{}, errHead
	}
	return head{stamp: stamp, expires: t}, nil
}

// parseMeta reads the whole of metadata.json. One that was edited by hand still counts if it is JSON of this
// version: its head then has no stamp.
func parseMeta(b []byte) (*metadata, head, error) {
	var m metadata
	if err := json.Unmarshal(b, &m); err != nil || m.V != 1 || m.Size < 0 {
		return nil, head{}, errHead
	}
	if h, err := parseHead(b); err == nil {
		return &m, h, nil
	}
	t, err := parseExpires(m.Expires)
	if err != nil {
		return nil, head{}, errHead
	}
	return &m, head{expires: t}, nil
}

func (m *metadata) encode() ([]byte, error) {
	m.V = 1
	if m.Stamp == "" {
		m.Stamp = strings.Repeat("0", stampLen)
	}
	if m.Expires == "" {
		m.Expires = never
	}
	if m.Sources == nil {
		m.Sources = []string{}
	}
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	b, err := json.Marshal(m)
	return append(b, '\n'), err
}

// info is the public form; Used and Pinned are not in the file.
func (m *metadata) info(h head) hostabi.BlobInfo {
	created, _ := time.Parse(timeLayout, m.Created) // zero if unknown
	return hostabi.BlobInfo{
		Digest: m.Digest, Size: m.Size, MediaType: m.MediaType, Created: created, Expires: h.expires,
		Sources: m.Sources, Annotations: m.Annotations,
	}
}

func formatExpires(t time.Time) string {
	if t.IsZero() || t.Year() > 9999 {
		return never
	}
	return t.UTC().Format(timeLayout)
}

func parseExpires(s string) (time.Time, error) {
	if s == never {
		return time.Time{}, nil
	}
	return time.Parse(timeLayout, s)
}

// durableBoot stands for the boot in stamps of blobs that were synced.
const durableBoot = "durable"

// stampOf names a state of a file that was hashed: boot, digest, inode, size, mtime, ctime.
func stampOf(boot string, d hostabi.Digest, id atomicfile.ID) string {
	b := make([]byte, 0, 256)
	b = append(b, "ds-stamp-1\n"...)
	b = append(append(b, boot...), 0)
	b = append(append(b, d...), 0)
	for _, v := range [...]int64{id.Ino, id.Size, id.Mtime, id.Ctime} {
		b = binary.LittleEndian.AppendUint64(b, uint64(v)) // bits matter, not the sign
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// stamped reports whether stamp proves that the file was hashed in this state.
func (s *Store) stamped(stamp string, d hostabi.Digest, id atomicfile.ID) bool {
	if stamp == "" {
		return false
	}
	return s.boot != "" && stamp == stampOf(s.boot, d, id) || stamp == stampOf(durableBoot, d, id)
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }
