package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
)

// mediaEmpty is the type of the placeholder in artifacts without content.
const mediaEmpty = "application/vnd.oci.empty.v1+json"

// export writes the layers of the artifacts below the directory of --output, in one directory for each
// platform if the user asked for several.
func (d *document) export(ctx context.Context, in *client.Invocation, artifacts []client.Artifact, several bool) error {
	host, err := in.Describe(ctx)
	if err != nil {
		return err
	}
	dir := in.Value("output")
	if dir == "" {
		return client.Usagef("--output needs a directory")
	}
	d.LocalPath = typed(host, dir)
	files, refused := plan(artifacts, several)
	for _, l := range refused {
		in.Printf("note: the layer title %q is no plain file name, so the file is named by its digest\n", l.Title)
	}
	if err := write(ctx, in, dir, files); err != nil {
		return hostError(d.LocalPath, err)
	}
	for _, f := range files {
		d.ExportedFiles = append(d.ExportedFiles, filepath.Join(d.LocalPath, filepath.FromSlash(f.path)))
	}
	return nil
}

// file is one layer and where it goes: a slashed path below the output directory.
type file struct {
	path  string
	layer client.Layer
	temp  string
}

// plan names the files. Titles and platforms come from strangers: every element of a path is a plain name, and
// no two files have the same one, whatever the case. refused are the layers whose title is not used.
func plan(artifacts []client.Artifact, several bool) (files []file, refused []client.Layer) {
	taken := make(map[string]bool)
	take := func(p string) bool {
		key := strings.ToLower(p)
		free := !taken[key]
		taken[key] = true
		return free
	}
	dirs := directories(artifacts, several || len(artifacts) > 1)
	for i, a := range artifacts {
		for _, l := range a.Layers {
			if l.Title == "" && l.MediaType == mediaEmpty {
				continue
			}
			name := baseName(l.Title)
			if name != "" && take(path.Join(dirs[i], name)) {
				files = append(files, file{path: path.Join(dirs[i], name), layer: l})
				continue
			}
			if l.Title != "" {
				refused = append(refused, l)
			}
			if p := path.Join(dirs[i], digestName(l.Digest)); take(p) {
				files = append(files, file{path: p, layer: l})
			}
		}
	}
	return files, refused
}

// directories are those of the artifacts: os/arch, with the variant where two would share one.
func directories(artifacts []client.Artifact, split bool) []string {
	out := make([]string, len(artifacts))
	if !split {
		return out
	}
	for i, a := range artifacts {
		p := a.Manifest.Platform
		if p == nil {
			if len(artifacts) > 1 {
				out[i] = digestName(a.Manifest.Digest)
			}
			continue
		}
		out[i] = path.Join(p.OS, p.Architecture)
		if p.Variant != "" && slices.Contains(out[:i], out[i]) {
			out[i] = path.Join(out[i], p.Variant)
		}
		if !plainPath(out[i]) || !plainName(p.OS) || !plainName(p.Architecture) || slices.Contains(out[:i], out[i]) {
			out[i] = digestName(a.Manifest.Digest)
		}
	}
	return out
}

func plainPath(p string) bool {
	for part := range strings.SplitSeq(p, "/") {
		if !plainName(part) {
			return false
		}
	}
	return true
}

// baseName is the last element of a title, "" if it is no plain name.
func baseName(title string) string {
	name := title[strings.LastIndexAny(title, `/\`)+1:]
	if !plainName(name) {
		return ""
	}
	return name
}

// digestPrefix begins the names of what has no usable name; a colon is none on some systems.
const digestPrefix = "sha256-"

func digestName(d client.Digest) string { return digestPrefix + d.Hex() }

// plainName reports whether s is a harmless file name on every system: visible characters only, not hidden, no
// option, no device of Windows, and not the digest of something else.
func plainName(s string) bool {
	if s == "" || len(s) > 200 || !utf8.ValidString(s) || strings.ContainsAny(s, `/\<>:"|?*`) {
		return false
	}
	if strings.ContainsAny(s[:1], ".- ") || strings.ContainsAny(s[len(s)-1:], ". ") {
		return false
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return false
	}
	if len(s) >= len(digestPrefix) && strings.EqualFold(s[:len(digestPrefix)], digestPrefix) {
		return false
	}
	stem, _, _ := strings.Cut(strings.ToUpper(s), ".")
	switch stem = strings.TrimRight(stem, " "); stem {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return false
	}
	device := strings.HasPrefix(stem, "COM") || strings.HasPrefix(stem, "LPT")
	return !device || utf8.RuneCountInString(stem) != 4 || !strings.ContainsAny(stem[3:], "0123456789¹²³")
}

// write stages all files beside their places and renames them only when every one is whole.
func write(ctx context.Context, in *client.Invocation, dir string, files []file) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the user's own directory, like any tool makes it
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range files {
			if f.temp != "" {
				err = errors.Join(err, root.Remove(f.temp))
			}
		}
		err = errors.Join(err, root.Close())
	}()
	for i := range files {
		if err := files[i].stage(ctx, in, root); err != nil {
			return err
		}
	}
	for i := range files {
		if err := root.Rename(files[i].temp, files[i].path); err != nil {
			return err
		}
		files[i].temp = ""
	}
	return nil
}

// stage copies the layer to a temporary file.
func (f *file) stage(ctx context.Context, in *client.Invocation, root *os.Root) error {
	if dir := path.Dir(f.path); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	b, err := in.Cache().Open(ctx, f.layer.Digest)
	if err != nil {
		return err
	}
	temp := path.Join(path.Dir(f.path), ".ds-porter-"+rand.Text())
	w, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return errors.Join(err, b.Close())
	}
	f.temp = temp
	stop := context.AfterFunc(ctx, func() { _ = w.Close() }) // ends a long copy
	n, err := io.Copy(w, b)
	if !stop() && ctx.Err() != nil {
		err = hostabi.Errorf(hostabi.ReasonInterrupted, "%w", context.Cause(ctx))
	} else if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err == nil && n != f.layer.Size {
		err = hostabi.Errorf(hostabi.ReasonDigestMismatch, "layer %s has %d bytes, its manifest says %d", f.layer.Digest, n, f.layer.Size)
	}
	return errors.Join(err, b.Close())
}

// hostError is client.FileError.
func hostError(name string, err error) error { return client.FileError(name, err) }
