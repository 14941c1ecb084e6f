// Command lim is the least that a client of a registry has to do: eight streams, write, sha256, rename; no
// resume, no retry, no index, no authentication. It also makes what it moves: lim seed HOST/REPO:TAG COUNT SIZE.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	streams  = 8
	buffer   = 256 << 10
	manifest = "application/vnd.oci.image.manifest.v1+json"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type image struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lim:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "pull":
		return pull(at(args[1]), args[2])
	case len(args) == 3 && args[0] == "push":
		return push(at(args[1]), args[2])
	case len(args) == 4 && args[0] == "seed":
		return seed(at(args[1]), args[2], args[3])
	case len(args) > 4 && args[0] == "through" && (args[1] == "cut" || args[1] == "whole"):
		return through(args[1], args[2], args[3], args[4:])
	case len(args) > 3 && args[0] == "pack":
		return pack(args[1], args[2], args[3:])
	}
	return errors.New("takes pull REF DIR, push REF DIR, seed REF COUNT SIZE, through cut|whole HOST WANT PROGRAM... or pack OUT SIZE FILE...")
}

// repo is a repository and a tag.
type repo struct {
	base, tag string
	http      *http.Client
}

func at(ref string) repo {
	i := strings.LastIndexByte(ref, ':')
	host, name, _ := strings.Cut(ref[:i], "/")
	return repo{"http://" + host + "/v2/" + name, ref[i+1:], &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: streams, DisableCompression: true, ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10,
	}}}
}

func (r repo) do(want int, method, url, mediaType string, body io.Reader, size int64) (*http.Response, error) {
	q, err := http.NewRequest(method, url, body)
	if err != nil {
		return nil, err
	}
	q.ContentLength = size
	if mediaType != "" {
		q.Header.Set("Accept", mediaType)
		q.Header.Set("Content-Type", mediaType)
	}
	resp, err := r.http.Do(q)
	if err == nil && resp.StatusCode != want {
		resp.Body.Close()
		err = fmt.Errorf("%s %s: %s", method, url, resp.Status)
	}
	return resp, err
}

// each runs f for every layer, some at a time.
func each(layers []descriptor, f func(d descriptor, buf []byte) error) error {
	work, errs := make(chan descriptor), make(chan error)
	for range streams {
		go func() {
			buf := make([]byte, buffer)
			var first error
			for d := range work {
				if err := f(d, buf); err != nil && first == nil {
					first = err
				}
			}
			errs <- first
		}()
	}
	for _, d := range layers {
		work <- d
	}
	close(work)
	var all []error
	for range streams {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

func (r repo) manifest() (m image, body []byte, err error) {
	resp, err := r.do(http.StatusOK, http.MethodGet, r.base+"/manifests/"+r.tag, manifest, nil, 0)
	if err != nil {
		return m, nil, err
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		return m, nil, err
	}
	return m, body, json.Unmarshal(body, &m)
}

func pull(r repo, dir string) error {
	m, body, err := r.manifest()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	err = each(append(m.Layers, m.Config), func(d descriptor, buf []byte) error {
		resp, err := r.do(http.StatusOK, http.MethodGet, r.base+"/blobs/"+d.Digest, "", nil, 0)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		tmp, err := os.CreateTemp(dir, "")
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(tmp, h)}, struct{ io.Reader }{resp.Body}, buf)
		if err := errors.Join(err, tmp.Close()); err != nil {
			return err
		}
		sum := hex.EncodeToString(h.Sum(nil))
		if "sha256:"+sum != d.Digest {
			return fmt.Errorf("%s has another digest", d.Digest)
		}
		return os.Rename(tmp.Name(), filepath.Join(dir, sum))
	})
	if err != nil {
		return err
	}
	fmt.Println(digestOf(body))
	return os.WriteFile(filepath.Join(dir, "manifest"), body, 0o600)
}

// push sends what pull left in dir.
func push(r repo, dir string) error {
	body, err := os.ReadFile(filepath.Join(dir, "manifest"))
	if err != nil {
		return err
	}
	var m image
	if err := json.Unmarshal(body, &m); err != nil {
		return err
	}
	err = each(append(m.Layers, m.Config), func(d descriptor, _ []byte) error {
		head, err := r.do(http.StatusNotFound, http.MethodHead, r.base+"/blobs/"+d.Digest, "", nil, 0)
		if err != nil {
			return err
		}
		head.Body.Close()
		f, err := os.Open(filepath.Join(dir, strings.TrimPrefix(d.Digest, "sha256:")))
		if err != nil {
			return err
		}
		defer f.Close()
		return r.upload(d, f)
	})
	if err != nil {
		return err
	}
	fmt.Println(digestOf(body))
	return r.putManifest(body)
}

func (r repo) upload(d descriptor, body io.Reader) error {
	resp, err := r.do(http.StatusAccepted, http.MethodPost, r.base+"/blobs/uploads/", "", nil, 0)
	if err != nil {
		return err
	}
	resp.Body.Close()
	to, err := resp.Location()
	if err != nil {
		return err
	}
	query := to.Query()
	query.Set("digest", d.Digest)
	to.RawQuery = query.Encode()
	if resp, err = r.do(http.StatusCreated, http.MethodPut, to.String(), "application/octet-stream", body, d.Size); err == nil {
		resp.Body.Close()
	}
	return err
}

func (r repo) putManifest(body []byte) error {
	resp, err := r.do(http.StatusCreated, http.MethodPut, r.base+"/manifests/"+r.tag, manifest, bytes.NewReader(body), int64(len(body)))
	if err == nil {
		resp.Body.Close()
	}
	return err
}

// seed pushes an artifact of count layers of noise, of size bytes each.
func seed(r repo, count, size string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	bytesEach, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return err
	}
	empty := []byte("{}")
	m := image{SchemaVersion: 2, MediaType: manifest, Config: descriptor{MediaType: "application/vnd.oci.empty.v1+json", Digest: digestOf(empty), Size: 2}}
	if err := r.upload(m.Config, bytes.NewReader(empty)); err != nil {
		return err
	}
	for i := range n {
		noise := func() io.Reader {
			return io.LimitReader(rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(n), byte(n >> 8)}), bytesEach)
		}
		h := sha256.New()
		if _, err := io.Copy(h, noise()); err != nil {
			return err
		}
		d := descriptor{
			MediaType: "application/octet-stream", Digest: "sha256:" + hex.EncodeToString(h.Sum(nil)), Size: bytesEach,
			Annotations: map[string]string{"org.opencontainers.image.title": fmt.Sprintf("layer-%d", i)},
		}
		if err := r.upload(d, noise()); err != nil {
			return err
		}
		m.Layers = append(m.Layers, d)
	}
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	fmt.Println(digestOf(body))
	return r.putManifest(body)
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
