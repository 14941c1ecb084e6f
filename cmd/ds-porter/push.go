package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
)

func pushCommand() client.Command {
	return client.Command{
		Name:    "push",
		Summary: "Push files as an artifact",
		Help: "Pushes a file, or the files of a directory, as one artifact whose layers have their names as titles.\n" +
			"With --manifest it pushes an index of several platforms: the file, YAML or JSON, lists\n\n" +
			"  artifact-type: application/vnd.acme.app\n" +
			"  annotations:\n" +
			"    org.opencontainers.image.version: 1.4.0\n" +
			"  manifests:\n" +
			"    - platform: linux/amd64\n" +
			"      path: dist/linux/amd64/app\n" +
			"      mediaType: application/octet-stream\n\n" +
			"with paths below SOURCE, by default the directory of the file, and the tag latest moves too.",
		Examples: []string{"ds porter push app.tar.zst ghcr.io/acme/app:1.4.0", "ds porter push -m ds.manifest.yaml ghcr.io/acme/app:1.4.0"},
		Args: []client.Arg{
			{Name: "source", Summary: "file or directory", Type: "path", Mode: "read"},
			{Name: "ref", Summary: "where to push", Type: "ref", Required: true},
		},
		Flags: []client.Flag{
			{Name: "manifest", Short: "m", Type: "path", Mode: "read", Summary: "file that lists what to push for which platform"},
			{Name: "no-latest", Type: "bool", Summary: "with --manifest: leave the tag latest where it is"},
		},
		Run: push,
	}
}

func push(ctx context.Context, in *client.Invocation) error {
	start := time.Now()
	host, err := in.Describe(ctx)
	if err != nil {
		return err
	}
	src, ref := "", in.Args[len(in.Args)-1]
	if len(in.Args) > 1 {
		src = in.Args[0]
	}
	var s source
	var opts []client.PushOption
	switch file := in.Value("manifest"); {
	case file != "":
		s, err = fromManifest(file, typed(host, file), src)
		if !in.Bool("no-latest") {
			opts = append(opts, client.WithTags("latest"))
		}
	case src == "":
		return client.Usagef("push needs a file or directory and a reference, or --manifest")
	default:
		s, err = fromPath(in, src, typed(host, src))
	}
	if err != nil {
		return err
	}
	defer s.close()
	root, err := in.PushArtifact(ctx, ref, s.spec, opts...)
	if err != nil {
		return err
	}
	doc, err := storedDocument(ctx, in, root, ref)
	if err != nil {
		return err
	}
	doc.LocalPath = typed(host, src)
	return doc.print(ctx, in, fmt.Sprintf("Pushed %s to %s   %s, %s", counted(s.files, "file"), doc.Reference, hostabi.SizeText(doc.Size), sinceText(start)))
}

// source is what is pushed. Files that the user did not type are opened below root only, so neither a path in
// a manifest nor a symbolic link of a project leads a push to other files.
type source struct {
	spec  client.Spec
	files int
	root  *os.Root
	name  string // of root, as the user typed it
}

func (s *source) close() {
	if s.root != nil {
		_ = s.root.Close() // read only
	}
}

func (s *source) open(dir, name string) (err error) {
	s.name = name
	if s.root, err = os.OpenRoot(dir); err != nil {
		return hostError(name, err)
	}
	return nil
}

// below is the file at name, a slashed path below the root.
func (s *source) below(name, mediaType string) client.Content {
	return s.content(path.Base(name), mediaType, path.Join(filepath.ToSlash(s.name), name), func() (*os.File, error) {
		return s.root.Open(filepath.FromSlash(name))
	})
}

// content is one file; shown is its name in messages.
func (s *source) content(title, mediaType, shown string, open func() (*os.File, error)) client.Content {
	s.files++
	if mediaType == "" {
		mediaType = mediaTypeOf(title)
	}
	return client.Content{MediaType: mediaType, Title: title, Open: func() (io.ReadCloser, error) {
		f, err := open()
		if err != nil {
			return nil, hostError(shown, err)
		}
		fi, err := f.Stat()
		if err == nil && !fi.Mode().IsRegular() {
			err = client.Usagef("%s is no regular file", shown)
		}
		if err != nil {
			_ = f.Close() // read only
			return nil, hostError(shown, err)
		}
		return f, nil
	}}
}

// artifactType is that of artifacts made of files without a manifest.
const artifactType = "application/vnd.delivery-station.files.v1"

// fromPath makes an artifact of one file or of the files of a directory.
func fromPath(in *client.Invocation, file, name string) (s source, err error) {
	fi, err := os.Stat(file)
	if err != nil {
		return s, hostError(name, err)
	}
	s.spec.ArtifactType = artifactType
	if !fi.IsDir() {
		one := s.content(filepath.Base(file), "", name, func() (*os.File, error) { return os.Open(file) })
		s.spec.Layers = []client.Content{one}
		return s, nil
	}
	if err := s.open(file, name); err != nil {
		return s, err
	}
	if err := s.addDir(in, file); err != nil {
		s.close()
		return s, err
	}
	return s, nil
}

// addDir adds the files of a directory in the order of their names. Hidden ones are left out, because they are
// seldom meant; anything else that is no file is an error rather than missing at the target.
func (s *source) addDir(in *client.Invocation, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return hostError(s.name, err)
	}
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), "."):
			in.Printf("note: %q is hidden and left out\n", e.Name())
		case !e.Type().IsRegular():
			return client.Usagef("%s: %q is no regular file; pack directories into an archive first", s.name, e.Name())
		default:
			s.spec.Layers = append(s.spec.Layers, s.below(e.Name(), ""))
		}
	}
	if s.files == 0 {
		return client.Usagef("%s has no files to push", s.name)
	}
	return nil
}

// fromManifest makes an index of what a manifest file lists: one artifact for each platform, in the order in
// which the platforms appear.
func fromManifest(file, name, dir string) (s source, err error) {
	m, err := readManifestFile(file, name)
	if err != nil {
		return s, err
	}
	shown := dir
	if dir == "" {
		dir, shown = filepath.Dir(file), filepath.Dir(name)
	}
	if err := s.open(dir, shown); err != nil {
		return s, err
	}
	s.spec = client.Spec{ArtifactType: m.ArtifactType, Annotations: m.Annotations, Children: []client.Spec{}}
	children := make(map[string]int)
	for _, e := range m.Manifests {
		i, ok := children[e.Platform]
		if !ok {
			i = len(s.spec.Children)
			children[e.Platform] = i
			s.spec.Children = append(s.spec.Children, client.Spec{ArtifactType: m.ArtifactType, Platform: e.platform, Annotations: m.Annotations})
		}
		c := &s.spec.Children[i]
		c.Layers = append(c.Layers, s.below(e.Path, e.MediaType))
	}
	return s, nil
}

// mediaTypeOf guesses the type of a file by its name.
func mediaTypeOf(name string) string {
	for _, t := range [...]struct{ suffix, mediaType string }{
		{".tar.gz", "application/vnd.oci.image.layer.v1.tar+gzip"},
		{".tgz", "application/vnd.oci.image.layer.v1.tar+gzip"},
		{".tar.zst", "application/vnd.oci.image.layer.v1.tar+zstd"},
		{".tar", "application/vnd.oci.image.layer.v1.tar"},
		{".json", "application/json"},
		{".yaml", "application/yaml"},
		{".yml", "application/yaml"},
		{".wasm", "application/wasm"},
		{".txt", "text/plain"},
	} {
		if strings.HasSuffix(name, t.suffix) {
			return t.mediaType
		}
	}
	return "application/octet-stream"
}
