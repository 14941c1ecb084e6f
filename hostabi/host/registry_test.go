package host_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/registry"
)

const mediaManifest, mediaIndex = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"

// realRegistry replaces the small registry by a real client and server.
func realRegistry(t testing.TB, f *fixture) (prefix string, server *dstest.RegistryServer) {
	t.Helper()
	server = dstest.Registry(t, dstest.RegistryOptions{})
	client, err := registry.New(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := host.Options{
		Cache:  func(o hostabi.PluginName, source string) (host.Cache, error) { return f.blobs.View(o, source), nil },
		Puller: func() (host.Puller, error) { return client, nil }, Events: f.bus,
	}
	f.Registrar = host.New(o)
	hostv1.RegisterCacheServer(f.Registrar, host.NewCache())
	hostv1.RegisterRegistryServer(f.Registrar, host.NewRegistry(func() (host.Pusher, error) { return client, nil }))
	return server.Host, server
}

// pushTexts pushes blobs that are in no cache; the manifest is the first.
func pushTexts(t testing.TB, ref string, texts ...string) {
	t.Helper()
	client, err := registry.New(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	blobs := make(map[hostabi.Digest]string)
	for _, text := range texts {
		blobs[hostabi.DigestOf([]byte(text))] = text
	}
	root := hostabi.Descriptor{MediaType: mediaManifest, Digest: hostabi.DigestOf([]byte(texts[0])), Size: int64(len(texts[0]))}
	open := func(_ context.Context, d hostabi.Digest) (io.ReadSeekCloser, error) {
		return struct {
			io.ReadSeeker
			io.Closer
		}{strings.NewReader(blobs[d]), io.NopCloser(nil)}, nil
	}
	if err := client.Push(t.Context(), ref, root, open, nil); err != nil {
		t.Fatal(err)
	}
}

// put commits a blob as the plugin.
func put(t testing.TB, s *host.Session, text string) string {
	t.Helper()
	var o hostv1.OpenedBlob
	var info hostv1.BlobInfo
	err := call(t.Context(), s, hostv1.Cache_Create_FullMethodName, &hostv1.CreateBlobRequest{}, &o)
	if err == nil {
		var h io.Writer
		if h, err = s.Handle(o.GetHandle()); err == nil {
			_, err = io.WriteString(h, text)
		}
	}
	if err == nil {
		err = call(t.Context(), s, hostv1.Cache_Commit_FullMethodName, &hostv1.CommitRequest{Handle: o.GetHandle()}, &info)
	}
	if err != nil {
		t.Fatal(err)
	}
	return info.GetDigest()
}

// entry is a descriptor in a manifest.
func entry(mediaType, text string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, hostabi.DigestOf([]byte(text)), len(text))
}

func image(layers ...string) string {
	var list []string
	for _, l := range layers {
		list = append(list, entry("text/plain", l))
	}
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, mediaManifest, entry("application/vnd.oci.empty.v1+json", "{}"), strings.Join(list, ","))
}

func push(t testing.TB, s *host.Session, ref, digest string) ([]*hostv1.PushEvent, error) {
	return list[hostv1.PushEvent](t, s, hostv1.Registry_Push_FullMethodName, &hostv1.PushRequest{Ref: ref, Digest: digest})
}

func pull(t testing.TB, s *host.Session, ref string) ([]*hostv1.PullEvent, error) {
	return list[hostv1.PullEvent](t, s, hostv1.Registry_Pull_FullMethodName, &hostv1.PullRequest{Ref: ref})
}

// at grants one registry host.
func at(prefix string) scopes {
	return scopes{
		hostabi.CacheRead: only("own"), hostabi.CacheWrite: only("own"),
		hostabi.RegistryPull: only(prefix + "/**"), hostabi.RegistryPush: only(prefix + "/**"),
	}
}

// TestManifestLiftsNoForeignBlob: a private blob that another plugin left in the cache is named by a manifest
// in a repository that the attacker may push to. The pull must fetch it from there, where it is not.
func TestManifestLiftsNoForeignBlob(t *testing.T) {
	f := newFixture(t)
	prefix, server := realRegistry(t, f)
	secret := f.store("other", prefix+"/private/app", "the private layer")
	attacker := f.open(at(prefix), nil)
	wantReason(t, "stat", stat(t, attacker, secret), hostabi.ReasonNotCached)

	// The registry refuses a manifest without its blobs, so it gets them and then hides the layer.
	pushTexts(t, prefix+"/evil/app:v1", image("the private layer"), "{}", "the private layer")
	server.Inject(dstest.Fault{Method: "GET", Path: "/blobs/" + string(secret), Status: 404, Times: 100})
	if _, err := pull(t, attacker, prefix+"/evil/app:v1"); err == nil {
		t.Error("the pull used the blob of another repository")
	}
	wantReason(t, "stat after the pull", stat(t, f.open(scopes{hostabi.CacheRead: only("artifact:" + prefix + "/evil/**")}, nil), secret), hostabi.ReasonNotCached)

	// Where the repository really holds it, it is fetched again and belongs to both.
	server.Heal()
	before := server.Count("GET", "/blobs/"+string(secret))
	if _, err := pull(t, attacker, prefix+"/evil/app:v1"); err != nil {
		t.Fatal(err)
	}
	if server.Count("GET", "/blobs/"+string(secret)) == before {
		t.Error("the blob was not fetched from the repository")
	}
	if err := stat(t, attacker, secret); err != nil {
		t.Errorf("pulled blob: %v", err)
	}
	for _, repo := range []string{"private", "evil"} {
		if err := stat(t, f.open(scopes{hostabi.CacheRead: only("artifact:" + prefix + "/" + repo + "/**")}, nil), secret); err != nil {
			t.Errorf("reader of %s: %v", repo, err)
		}
	}
}

func TestPushGraphs(t *testing.T) {
	f := newFixture(t)
	prefix, _ := realRegistry(t, f)
	foreign := "blob of another plugin"
	f.store("other", "", foreign)
	s := f.open(at(prefix), nil)
	for _, text := range []string{"{}", "a", "b"} {
		put(t, s, text)
	}
	nest := func(text string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, mediaIndex, entry(mediaIndex, text))
	}
	imageA, imageB := image("a"), image("b")
	index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s,%s,%s]}`, mediaIndex, entry(mediaManifest, imageA), entry(mediaManifest, imageB), entry(mediaManifest, imageA))
	deep := nest(nest(nest(nest(imageA))))
	for _, m := range []string{imageA, imageB, index, nest(imageA), nest(nest(imageA)), nest(nest(nest(imageA)))} {
		put(t, s, m)
	}
	for _, c := range []struct {
		name, root string
		want       hostabi.Reason
	}{
		{"image", imageA, ""},
		{"index", index, ""},
		{"missing layer", image("absent"), hostabi.ReasonGraphIncomplete},
		{"foreign layer", image(foreign), hostabi.ReasonGraphIncomplete},
		{"missing child", fmt.Sprintf(`{"manifests":[%s]}`, entry(mediaManifest, "absent")), hostabi.ReasonGraphIncomplete},
		{"too deep", deep, hostabi.ReasonBadMessage},
		{"no manifest", "just text", hostabi.ReasonBadMessage},
		{"bad digest inside", `{"layers":[{"digest":"sha256:zz"}]}`, hostabi.ReasonBadDigest},
	} {
		events, err := push(t, s, prefix+"/out/app:v1", put(t, s, c.root))
		wantReason(t, c.name, err, c.want)
		if c.want != "" {
			continue
		}
		last := events[len(events)-1].GetRoot()
		if last.GetDigest() != string(hostabi.DigestOf([]byte(c.root))) {
			t.Errorf("%s: last event is %v", c.name, events[len(events)-1])
		}
		got, err := pull(t, f.open(at(prefix), nil), prefix+"/out/app:v1")
		if err != nil || got[len(got)-1].GetRoot().GetDigest() != last.GetDigest() {
			t.Errorf("%s: pulled again: %v", c.name, err)
		}
	}
	wantReason(t, "root not in the cache", func() error {
		_, err := push(t, s, prefix+"/out/app:v1", string(hostabi.DigestOf([]byte("nothing"))))
		return err
	}(), hostabi.ReasonGraphIncomplete)
	_, err := push(t, s, prefix+"/out/app:v1", "sha256:short")
	wantReason(t, "bad root", err, hostabi.ReasonBadDigest)
}

func TestResolvePlatform(t *testing.T) {
	f := newFixture(t)
	prefix, _ := realRegistry(t, f)
	s := f.open(at(prefix), nil)
	arm, amd := image("arm"), image("amd")
	for _, text := range []string{"{}", "arm", "amd", arm, amd} {
		put(t, s, text)
	}
	of := func(text, arch string) string {
		return strings.TrimSuffix(entry(mediaManifest, text), "}") + fmt.Sprintf(`,"platform":{"os":"linux","architecture":%q}}`, arch)
	}
	index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s,%s]}`, mediaIndex, of(amd, "amd64"), of(arm, "arm64"))
	if _, err := push(t, s, prefix+"/out/app:v1", put(t, s, index)); err != nil {
		t.Fatal(err)
	}
	resolve := func(p *hostv1.Platform) (*hostv1.Descriptor, error) {
		var d hostv1.Descriptor
		err := call(t.Context(), f.open(at(prefix), nil), hostv1.Registry_Resolve_FullMethodName, &hostv1.RefRequest{Ref: prefix + "/out/app:v1", Platform: p, Fresh: true}, &d)
		return &d, err
	}
	for _, c := range []struct{ arch, want string }{{"arm64", arm}, {"amd64", amd}} {
		d, err := resolve(&hostv1.Platform{Os: "linux", Architecture: c.arch})
		if err != nil || d.GetDigest() != string(hostabi.DigestOf([]byte(c.want))) || d.GetPlatform().GetArchitecture() != c.arch {
			t.Errorf("%s: %v %v", c.arch, d, err)
		}
	}
	if d, err := resolve(nil); err != nil || d.GetDigest() != string(hostabi.DigestOf([]byte(index))) {
		t.Errorf("root: %v %v", d, err)
	}
	if _, err := resolve(&hostv1.Platform{Os: "plan9", Architecture: "mips"}); err == nil {
		t.Error("a platform that is not there was resolved")
	}
}

func TestReferrersAndTags(t *testing.T) {
	f := newFixture(t)
	prefix, _ := realRegistry(t, f)
	s := f.open(at(prefix), nil)
	put(t, s, "{}")
	put(t, s, "a")
	root := put(t, s, image("a"))
	if _, err := push(t, s, prefix+"/out/app:v1", root); err != nil {
		t.Fatal(err)
	}
	signature := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"text/sig","config":%s,"layers":[],"subject":%s}`,
		mediaManifest, entry("application/vnd.oci.empty.v1+json", "{}"), entry(mediaManifest, image("a")))
	if _, err := push(t, s, prefix+"/out/app@"+string(hostabi.DigestOf([]byte(signature))), put(t, s, signature)); err != nil {
		t.Fatal(err)
	}
	got, err := list[hostv1.Descriptor](t, s, hostv1.Registry_Referrers_FullMethodName, &hostv1.ReferrersRequest{Ref: prefix + "/out/app:v1", ArtifactType: "text/sig"})
	if err != nil || len(got) != 1 || got[0].GetArtifactType() != "text/sig" {
		t.Errorf("referrers: %v %v", got, err)
	}
	tags, err := list[hostv1.TagName](t, s, hostv1.Registry_ListTags_FullMethodName, &hostv1.ListTagsRequest{Repository: prefix + "/out/app"})
	if err != nil || len(tags) != 1 || tags[0].GetName() != "v1" {
		t.Errorf("tags: %v %v", tags, err)
	}
}
