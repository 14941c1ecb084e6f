package cases

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

func metaDescribe(g *guest) {
	var d hostv1lite.DescribeResponse
	if err := g.call(hostv1lite.MetaDescribe, &hostv1lite.DescribeRequest{}, &d); err != nil {
		g.outcome("describe", err)
		return
	}
	g.print("abi %s ds %s", d.Abi, d.DsVersion)
	g.print("plugin %s %s kind %s command %q depth %d", d.Invocation.Plugin, d.Invocation.Version, d.Invocation.Kind, d.Invocation.Command, d.Invocation.Depth)
	g.print("limits %d %d %d calls left %d", d.Limits.MessageBytes, d.Limits.Streams, d.Limits.Handles, d.Limits.CallsLeft)
	g.print("trace %t id %t backend %t", len(d.Invocation.TraceId) == 32, d.Invocation.Id != "", d.Backend == "native" || d.Backend == "wasm")
	for _, c := range d.Grants {
		if c.Cap == string(hostabi.StateWrite) {
			g.print("grant %s %s", c.Cap, strings.Join(c.Allow, " "))
		}
	}
}

func metaMethods(g *guest) {
	var d hostv1lite.DescribeResponse
	err := g.call(hostv1lite.MetaDescribe, &hostv1lite.DescribeRequest{}, &d)
	g.outcome("describe", err)
	g.lines = append(g.lines, d.Methods...)
}

func metaUnknownMethod(g *guest) { g.outcome("call", g.raw("/ds.host.v1.Meta/Nothing", nil)) }

func metaUnknownService(g *guest) { g.outcome("call", g.raw("/ds.host.v9.Nothing/Get", nil)) }

func metaUnknownStream(g *guest) {
	st, err := g.open("/ds.host.v1.Meta/Nothing", &hostv1lite.Empty{})
	if err == nil {
		err = st.recv(&hostv1lite.Empty{})
	}
	g.outcome("stream", err)
}

func metaGarbage(g *guest) {
	g.outcome("wire", g.raw(hostv1lite.ConfigGet, []byte{0xff, 0xff, 0xff}))
	g.outcome("length", g.raw(hostv1lite.ConfigGet, []byte{1<<3 | 2, 200, 'a'}))
	st, err := g.s.Stream(g.ctx, hostv1lite.StateList, hostabi.EncProto)
	if err == nil {
		err = st.Send([]byte{0xff, 0xff})
	}
	if err == nil {
		err = st.CloseSend()
	}
	if err == nil {
		_, err = st.Recv()
	}
	g.outcome("stream", err)
}

func metaInvalidUTF8(g *guest) {
	g.outcome("call", g.call(hostv1lite.ConfigGet, &hostv1lite.GetConfigRequest{Key: "settings.\xff"}, &hostv1lite.ConfigValue{}))
}

// metaUnknownField adds field 99, as a guest of a later ds.host.v1 would.
func metaUnknownField(g *guest) {
	req := (&hostv1lite.GetConfigRequest{Key: "settings.kit.greeting"}).AppendProto(nil)
	req = append(req, 0x9a, 0x06, 3, 'n', 'e', 'w')
	out, err := g.s.Invoke(g.ctx, hostabi.Call{Method: hostv1lite.ConfigGet, Req: req})
	g.outcome("call", err)
	var v hostv1lite.ConfigValue
	if err == nil && v.ParseProto(out) == nil {
		g.print("%s", v.Json)
	}
}

// metaEmpty appends the answer to what is there.
func metaEmpty(g *guest) {
	out, err := g.s.Invoke(g.ctx, hostabi.Call{Method: hostv1lite.LogWrite, Dst: []byte("kept")})
	g.outcome("call", err)
	g.print("%s", out)
}

func configGet(key string) func(*guest) {
	return func(g *guest) {
		var v hostv1lite.ConfigValue
		if err := g.call(hostv1lite.ConfigGet, &hostv1lite.GetConfigRequest{Key: key}, &v); err != nil {
			g.outcome("get", err)
			if e := hostabi.AsError(err); e.Meta["capability"] != "" {
				g.print("%s %s by %s", e.Meta["capability"], e.Meta["resource"], e.Meta["plugin"])
			}
			return
		}
		g.print("%s = %s secret %t", v.Key, v.Json, v.Secret)
	}
}

func configList(prefix string) func(*guest) {
	return func(g *guest) {
		var t hostv1lite.ConfigTree
		g.outcome("list", g.call(hostv1lite.ConfigList, &hostv1lite.ListConfigRequest{Prefix: prefix}, &t))
		for _, v := range t.Values {
			g.print("%s = %s secret %t", v.Key, v.Json, v.Secret)
		}
	}
}

// seeded is the text of a blob that the world puts into the cache, and its digest.
const seeded = "private blob of somebody else"

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func cacheStatMiss(g *guest) {
	g.outcome("stat", g.call(hostv1lite.CacheStat, &hostv1lite.BlobRef{Digest: digestOf([]byte("nobody has this"))}, &hostv1lite.BlobInfo{}))
}

func cacheBadDigest(g *guest) {
	g.outcome("stat", g.call(hostv1lite.CacheStat, &hostv1lite.BlobRef{Digest: "md5:00"}, &hostv1lite.BlobInfo{}))
	g.outcome("create", g.call(hostv1lite.CacheCreate, &hostv1lite.CreateBlobRequest{Digest: "sha256:XY"}, &hostv1lite.OpenedBlob{}))
}

func cacheRoundTrip(g *guest) {
	text := []byte(strings.Repeat("content ", 10_000))
	var o hostv1lite.OpenedBlob
	g.outcome("create", g.call(hostv1lite.CacheCreate, &hostv1lite.CreateBlobRequest{Digest: digestOf(text), Size: int64(len(text)), MediaType: "text/plain"}, &o))
	g.outcome("write", g.write(&o, text[:10]))
	g.outcome("write", g.write(&o, text[10:]))
	var info hostv1lite.BlobInfo
	g.outcome("commit", g.call(hostv1lite.CacheCommit, &hostv1lite.CommitRequest{Handle: o.Handle, Annotations: map[string]string{"a": "b"}}, &info))
	g.print("size %d type %s digest %t", info.Size, info.MediaType, info.Digest == digestOf(text))
	b, err := g.read(info.Digest)
	g.outcome("read", err)
	g.print("same %t", string(b) == string(text))
	g.outcome("commit again", g.call(hostv1lite.CacheCommit, &hostv1lite.CommitRequest{Handle: o.Handle}, &info))
}

func cacheWrongDigest(g *guest) {
	var o hostv1lite.OpenedBlob
	want := digestOf([]byte("something else"))
	g.outcome("create", g.call(hostv1lite.CacheCreate, &hostv1lite.CreateBlobRequest{}, &o))
	g.outcome("write", g.write(&o, []byte("this")))
	g.outcome("commit", g.call(hostv1lite.CacheCommit, &hostv1lite.CommitRequest{Handle: o.Handle, Digest: want}, &hostv1lite.BlobInfo{}))
	g.outcome("stat wanted", g.call(hostv1lite.CacheStat, &hostv1lite.BlobRef{Digest: want}, &hostv1lite.BlobInfo{}))
	g.outcome("stat written", g.call(hostv1lite.CacheStat, &hostv1lite.BlobRef{Digest: digestOf([]byte("this"))}, &hostv1lite.BlobInfo{}))
}

func cacheWrongSize(g *guest) {
	var o hostv1lite.OpenedBlob
	g.outcome("create", g.call(hostv1lite.CacheCreate, &hostv1lite.CreateBlobRequest{Size: 100}, &o))
	g.outcome("write", g.write(&o, []byte("four")))
	g.outcome("commit", g.call(hostv1lite.CacheCommit, &hostv1lite.CommitRequest{Handle: o.Handle}, &hostv1lite.BlobInfo{}))
}

func cacheAbort(g *guest) {
	var o hostv1lite.OpenedBlob
	g.outcome("create", g.call(hostv1lite.CacheCreate, &hostv1lite.CreateBlobRequest{}, &o))
	g.outcome("write", g.write(&o, []byte("aborted")))
	g.outcome("close", g.call(hostv1lite.CacheClose, &hostv1lite.HandleRef{Handle: o.Handle}, &hostv1lite.Empty{}))
	g.outcome("commit", g.call(hostv1lite.CacheCommit, &hostv1lite.CommitRequest{Handle: o.Handle}, &hostv1lite.BlobInfo{}))
	g.outcome("stat", g.call(hostv1lite.CacheStat, &hostv1lite.BlobRef{Digest: digestOf([]byte("aborted"))}, &hostv1lite.BlobInfo{}))
}

// cacheLeaveSink ends with an open sink; the host then looks into the cache.
func cacheLeaveSink(g *guest) {
	var o hostv1lite.OpenedBlob
	g.outcome("create", g.call(hostv1lite.CacheCreate, &hostv1lite.CreateBlobRequest{}, &o))
	g.outcome("write", g.write(&o, []byte("left behind")))
}

func cacheForeign(g *guest) {
	d := digestOf([]byte(seeded))
	g.outcome("stat", g.call(hostv1lite.CacheStat, &hostv1lite.BlobRef{Digest: d}, &hostv1lite.BlobInfo{}))
	g.outcome("open", g.call(hostv1lite.CacheOpen, &hostv1lite.OpenBlobRequest{Digest: d}, &hostv1lite.OpenedBlob{}))
	g.outcome("remove", g.call(hostv1lite.CacheRemove, &hostv1lite.BlobRef{Digest: d}, &hostv1lite.Empty{}))
}

func cacheList(g *guest) {
	for _, text := range []string{"one", "two"} {
		_, err := g.put([]byte(text), "text/"+text)
		g.outcome("put", err)
	}
	n := 0
	err := g.each(hostv1lite.CacheList, &hostv1lite.ListBlobsRequest{}, func(st stream) error {
		var b hostv1lite.BlobInfo
		if err := st.recv(&b); err != nil {
			return err
		}
		n++
		return nil
	})
	g.outcome("list", err)
	g.print("%d blobs", n)
	err = g.each(hostv1lite.CacheList, &hostv1lite.ListBlobsRequest{MediaType: "text/two"}, func(st stream) error {
		var b hostv1lite.BlobInfo
		if err := st.recv(&b); err != nil {
			return err
		}
		g.print("%s %d", b.MediaType, b.Size)
		return nil
	})
	g.outcome("list", err)
}

func cachePin(g *guest) {
	info, err := g.put([]byte("pinned"), "")
	g.outcome("put", err)
	g.outcome("pin", g.call(hostv1lite.CachePin, &hostv1lite.PinRequest{Digest: info.Digest, Ttl: 3_600_000}, &hostv1lite.Empty{}))
	g.outcome("unpin", g.call(hostv1lite.CachePin, &hostv1lite.PinRequest{Digest: info.Digest}, &hostv1lite.Empty{}))
	g.outcome("too long", g.call(hostv1lite.CachePin, &hostv1lite.PinRequest{Digest: info.Digest, Ttl: 400 * 24 * 3_600_000}, &hostv1lite.Empty{}))
}

// cachePinned pins one of two blobs that an earlier run left, and has the host evict all that it may.
func cachePinned(g *guest) {
	pinned, loose := digestOf([]byte("pinned")), digestOf([]byte("loose"))
	g.outcome("pin", g.call(hostv1lite.CachePin, &hostv1lite.PinRequest{Digest: pinned, Ttl: 30 * 24 * 3_600_000}, &hostv1lite.Empty{}))
	g.do("evict", "run")
	g.outcome("pinned", g.call(hostv1lite.CacheStat, &hostv1lite.BlobRef{Digest: pinned}, &hostv1lite.BlobInfo{}))
	g.outcome("loose", g.call(hostv1lite.CacheStat, &hostv1lite.BlobRef{Digest: loose}, &hostv1lite.BlobInfo{}))
}

// cacheOverQuota writes twice what cache.write grants.
func cacheOverQuota(g *guest) {
	var o hostv1lite.OpenedBlob
	g.outcome("create", g.call(hostv1lite.CacheCreate, &hostv1lite.CreateBlobRequest{}, &o))
	err := g.write(&o, make([]byte, 2<<20))
	if err == nil {
		err = g.call(hostv1lite.CacheCommit, &hostv1lite.CommitRequest{Handle: o.Handle}, &hostv1lite.BlobInfo{})
	}
	g.outcome("commit", err)
}

// zeros256 is the digest of the blob of 256 MiB that the world has for cacheOpenBig.
const zeros256 = "sha256:a6d72ac7690f53be6ae46ba88506bd97302a093f7108472bd9efc3cefda06484"

// cacheOpenBig reads a blob that no guest could keep in memory.
func cacheOpenBig(g *guest) {
	var o hostv1lite.OpenedBlob
	err := g.call(hostv1lite.CacheOpen, &hostv1lite.OpenBlobRequest{Digest: zeros256, WantFd: true}, &o)
	g.outcome("open", err)
	if err != nil {
		return
	}
	r, done, err := g.reader(&o)
	if err != nil {
		g.outcome("read", err)
		return
	}
	defer done()
	buf, size, zero := make([]byte, 1<<20), 0, true
	for err == nil {
		var n int
		n, err = r.Read(buf)
		size += n
		zero = zero && (n == 0 || buf[0] == 0 && buf[n-1] == 0)
	}
	if err == io.EOF {
		err = nil
	}
	g.outcome("read", err)
	g.print("%d bytes, zero %t", size, zero)
}

func cacheUsage(g *guest) {
	g.outcome("usage", g.call(hostv1lite.CacheUsage, &hostv1lite.UsageRequest{}, &hostv1lite.UsageReply{}))
}

// evict prints how many blobs an eviction names and what they weigh together.
func (g *guest) evict(what string, req *hostv1lite.EvictRequest) {
	n, size := 0, int64(0)
	err := g.each(hostv1lite.CacheEvict, req, func(st stream) error {
		var b hostv1lite.BlobInfo
		if err := st.recv(&b); err != nil {
			return err
		}
		n++
		size += b.Size
		return nil
	})
	g.outcome(what, err)
	g.print("%d blobs, %d bytes", n, size)
}

// verify prints how many blobs are right, and what is wrong with the others.
func (g *guest) verify(what string, req *hostv1lite.VerifyRequest) {
	right, wrong := 0, 0
	err := g.each(hostv1lite.CacheVerify, req, func(st stream) error {
		var v hostv1lite.VerifyEvent
		if err := st.recv(&v); err != nil {
			return err
		}
		if v.Ok {
			right++
		}
		if v.Problem != "" {
			wrong++
		}
		return nil
	})
	g.outcome(what, err)
	g.print("%d right, %d wrong", right, wrong)
}

// cacheHousekeeping is what a plugin does that may manage the whole cache: one blob is its own and pinned, one of somebody
// else is not.
func cacheHousekeeping(g *guest) {
	foreign := digestOf([]byte(seeded))
	info, err := g.put([]byte("kept"), "")
	g.outcome("put", err)
	g.outcome("pin", g.call(hostv1lite.CachePin, &hostv1lite.PinRequest{Digest: info.Digest, Ttl: 3_600_000}, &hostv1lite.Empty{}))
	var b hostv1lite.BlobInfo
	g.outcome("stat", g.call(hostv1lite.CacheStat, &hostv1lite.BlobRef{Digest: info.Digest}, &b))
	g.print("pinned %t", b.Pinned)
	g.outcome("stat foreign", g.call(hostv1lite.CacheStat, &hostv1lite.BlobRef{Digest: foreign}, &b))
	g.print("pinned %t", b.Pinned)
	var u hostv1lite.UsageReply
	g.outcome("usage", g.call(hostv1lite.CacheUsage, &hostv1lite.UsageRequest{}, &u))
	g.print("%d blobs, %d bytes, %d pinned, on disk %t", u.Entries, u.Bytes, u.PinnedBytes, u.DiskBytes > 0)
	g.verify("verify", &hostv1lite.VerifyRequest{})
	g.evict("would evict", &hostv1lite.EvictRequest{DryRun: true})
	g.evict("evict expired", &hostv1lite.EvictRequest{ExpiredOnly: true})
	g.evict("evict by policy", &hostv1lite.EvictRequest{Policy: true})
	g.evict("evict", &hostv1lite.EvictRequest{})
	g.outcome("stat foreign", g.call(hostv1lite.CacheStat, &hostv1lite.BlobRef{Digest: foreign}, &b))
	g.outcome("stat", g.call(hostv1lite.CacheStat, &hostv1lite.BlobRef{Digest: info.Digest}, &b))
}

// cacheHousekeepingDenied is the same for a plugin that may manage its own blobs only.
func cacheHousekeepingDenied(g *guest) {
	_, err := g.put([]byte("own"), "")
	g.outcome("put", err)
	g.evict("evict", &hostv1lite.EvictRequest{DryRun: true})
	g.verify("verify own", &hostv1lite.VerifyRequest{})
	g.verify("verify foreign", &hostv1lite.VerifyRequest{Digests: []string{digestOf([]byte(seeded))}})
	g.verify("repair", &hostv1lite.VerifyRequest{Repair: true})
	g.verify("bad digest", &hostv1lite.VerifyRequest{Digests: []string{"md5:00"}})
}

// cacheVerifyDamaged asks about a blob whose bytes the world has changed: asking by name does not take it away, repairing
// does.
func cacheVerifyDamaged(g *guest) {
	d := digestOf([]byte(seeded))
	absent := digestOf([]byte("nobody has this"))
	g.verify("verify", &hostv1lite.VerifyRequest{Digests: []string{d, absent}})
	g.verify("verify all", &hostv1lite.VerifyRequest{})
	g.verify("repair", &hostv1lite.VerifyRequest{Digests: []string{d}, Repair: true})
	g.verify("verify all", &hostv1lite.VerifyRequest{})
	g.outcome("stat", g.call(hostv1lite.CacheStat, &hostv1lite.BlobRef{Digest: d}, &hostv1lite.BlobInfo{}))
}

// cacheCreateFrom brings a blob that counts as pulled from a repository, twice, and tries what is none.
func cacheCreateFrom(g *guest) {
	text := []byte("from elsewhere")
	for _, source := range []string{g.ref("elsewhere"), g.ref("elsewhere"), g.ref("other"), g.ref("elsewhere:tag")} {
		var o hostv1lite.OpenedBlob
		err := g.call(hostv1lite.CacheCreate, &hostv1lite.CreateBlobRequest{Digest: digestOf(text), Source: source}, &o)
		g.outcome("create", err)
		if err != nil {
			continue
		}
		g.outcome("write", g.write(&o, text))
		var info hostv1lite.BlobInfo
		g.outcome("commit", g.call(hostv1lite.CacheCommit, &hostv1lite.CommitRequest{Handle: o.Handle}, &info))
		g.print("%d sources, it is one: %t", len(info.Sources), slices.Contains(info.Sources, source))
	}
}

// ref is a reference in the world's registry.
func (g *guest) ref(name string) string { return g.setting("settings.kit.registry") + "/" + name }

func registryResolve(g *guest) {
	var d hostv1lite.Descriptor
	err := g.call(hostv1lite.RegistryResolve, &hostv1lite.RefRequest{Ref: g.ref("app:v1")}, &d)
	g.outcome("resolve", err)
	if err == nil {
		g.print("%s %t %t", d.MediaType, d.Size > 0, hostabi.Digest(d.Digest).Valid())
	}
}

func registryMissing(g *guest) {
	g.outcome("resolve", g.call(hostv1lite.RegistryResolve, &hostv1lite.RefRequest{Ref: g.ref("app:v9")}, &hostv1lite.Descriptor{}))
}

func registryBadRef(g *guest) {
	g.outcome("resolve", g.call(hostv1lite.RegistryResolve, &hostv1lite.RefRequest{Ref: "UPPER/case:::"}, &hostv1lite.Descriptor{}))
}

// pull counts the transfers of a pull that are no manifests by how and returns its root. Progress must not come after the root.
func (g *guest) pull(ref string) (root *hostv1lite.Descriptor, how map[string]int, err error) {
	how = make(map[string]int)
	err = g.each(hostv1lite.RegistryPull, &hostv1lite.PullRequest{Ref: ref}, func(st stream) error {
		var e hostv1lite.PullEvent
		if err := st.recv(&e); err != nil {
			return err
		}
		if root != nil {
			return fmt.Errorf("event after root")
		}
		if root = e.Root; e.Blob != nil && e.Blob.Descriptor.MediaType != mediaManifest {
			how[e.Blob.How]++
		}
		return nil
	})
	return root, how, err
}

func registryPull(g *guest) {
	root, how, err := g.pull(g.ref("app:v1"))
	g.outcome("pull", err)
	if err == nil {
		g.print("root %t network %d cache %d", root != nil, how["network"], how["cache"])
	}
}

func registryPullTwice(g *guest) {
	for range 2 {
		root, how, err := g.pull(g.ref("app:v1"))
		g.outcome("pull", err)
		g.print("root %t network %t", root != nil, how["network"] > 0)
	}
}

func registryReadPulled(g *guest) {
	d := digestOf([]byte("layer one"))
	g.outcome("stat before", g.call(hostv1lite.CacheStat, &hostv1lite.BlobRef{Digest: d}, &hostv1lite.BlobInfo{}))
	_, _, err := g.pull(g.ref("app:v1"))
	g.outcome("pull", err)
	b, err := g.read(d)
	g.outcome("read", err)
	g.print("%s", b)
}

func registryDenied(g *guest) {
	_, _, err := g.pull(g.ref("secret:v1"))
	g.outcome("pull", err)
	g.outcome("resolve", g.call(hostv1lite.RegistryResolve, &hostv1lite.RefRequest{Ref: g.ref("secret:v1")}, &hostv1lite.Descriptor{}))
}

const (
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaEmpty    = "application/vnd.oci.empty.v1+json"
)

// artifact makes a manifest with one layer.
func artifact(layer string, size int) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"text/kit","config":{"mediaType":%q,"digest":%q,"size":2},`+
		`"layers":[{"mediaType":"text/plain","digest":%q,"size":%d}]}`, mediaManifest, mediaEmpty, digestOf([]byte("{}")), layer, size)
}

// push pushes the graph below digest and returns its root.
func (g *guest) push(ref, digest string, tags ...string) (root *hostv1lite.Descriptor, err error) {
	err = g.each(hostv1lite.RegistryPush, &hostv1lite.PushRequest{Ref: ref, Digest: digest, Tags: tags}, func(st stream) error {
		var e hostv1lite.PushEvent
		if err := st.recv(&e); err != nil {
			return err
		}
		if e.Root != nil {
			root = e.Root
		}
		return nil
	})
	return root, err
}

func registryPushPull(g *guest) {
	layer, err := g.put([]byte("pushed layer"), "text/plain")
	g.outcome("layer", err)
	_, err = g.put([]byte("{}"), mediaEmpty)
	g.outcome("config", err)
	m, err := g.put(artifact(layer.Digest, int(layer.Size)), mediaManifest)
	g.outcome("manifest", err)
	root, err := g.push(g.ref("out:v1"), m.Digest, "latest")
	g.outcome("push", err)
	if err == nil {
		g.print("%s %t %s", root.MediaType, root.Digest == m.Digest, root.ArtifactType)
	}
	for _, tag := range []string{"v1", "latest"} {
		root, _, err = g.pull(g.ref("out:" + tag))
		g.outcome("pull", err)
		g.print("same %t", root != nil && root.Digest == m.Digest)
	}
}

func registryPushMissing(g *guest) {
	_, err := g.put([]byte("{}"), mediaEmpty)
	g.outcome("config", err)
	m, err := g.put(artifact(digestOf([]byte("absent")), 6), mediaManifest)
	g.outcome("manifest", err)
	_, err = g.push(g.ref("out:v1"), m.Digest)
	g.outcome("push", err)
}

// registryPushForeign names a blob in the cache that the plugin may not read: same answer as for a missing one.
func registryPushForeign(g *guest) {
	_, err := g.put([]byte("{}"), mediaEmpty)
	g.outcome("config", err)
	m, err := g.put(artifact(digestOf([]byte(seeded)), len(seeded)), mediaManifest)
	g.outcome("manifest", err)
	_, err = g.push(g.ref("out:v1"), m.Digest)
	g.outcome("push", err)
}

func registryPushDenied(g *guest) {
	m, err := g.put(artifact(digestOf([]byte("x")), 1), mediaManifest)
	g.outcome("manifest", err)
	_, err = g.push(g.ref("app:v2"), m.Digest)
	g.outcome("push", err)
	g.outcome("tag", g.call(hostv1lite.RegistryTag, &hostv1lite.TagRequest{Ref: g.ref("app:v1"), Tag: "mine"}, &hostv1lite.Descriptor{}))
}

func registryTag(g *guest) {
	var a, b hostv1lite.Descriptor
	g.outcome("tag", g.call(hostv1lite.RegistryTag, &hostv1lite.TagRequest{Ref: g.ref("out:seed"), Tag: "again"}, &a))
	g.outcome("resolve", g.call(hostv1lite.RegistryResolve, &hostv1lite.RefRequest{Ref: g.ref("out:again")}, &b))
	g.print("same %t", a.Digest == b.Digest)
	g.outcome("bad tag", g.call(hostv1lite.RegistryTag, &hostv1lite.TagRequest{Ref: g.ref("out:seed"), Tag: "no/tag"}, &a))
}

func registryTags(g *guest) {
	err := g.each(hostv1lite.RegistryListTags, &hostv1lite.ListTagsRequest{Repository: g.ref("app")}, func(st stream) error {
		var t hostv1lite.TagName
		if err := st.recv(&t); err != nil {
			return err
		}
		g.print("%s", t.Name)
		return nil
	})
	g.outcome("tags", err)
}

func registryManyTags(g *guest) {
	seen := make(map[string]bool)
	err := g.each(hostv1lite.RegistryListTags, &hostv1lite.ListTagsRequest{Repository: g.ref("app")}, func(st stream) error {
		var t hostv1lite.TagName
		err := st.recv(&t)
		if err == nil {
			seen[t.Name] = true
		}
		return err
	})
	g.outcome("tags", err)
	g.print("%d, first %t last %t", len(seen), seen["t0000"], seen["t0999"])
}

// registryReferrers pushes an artifact about another one and asks for it.
func registryReferrers(g *guest) {
	var subject hostv1lite.Descriptor
	g.outcome("resolve", g.call(hostv1lite.RegistryResolve, &hostv1lite.RefRequest{Ref: g.ref("out:seed")}, &subject))
	_, err := g.put([]byte("{}"), mediaEmpty)
	g.outcome("config", err)
	about := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"text/about","config":{"mediaType":%q,"digest":%q,"size":2},"layers":[],`+
		`"subject":{"mediaType":%q,"digest":%q,"size":%d}}`, mediaManifest, mediaEmpty, digestOf([]byte("{}")), mediaManifest, subject.Digest, subject.Size)
	m, err := g.put(about, mediaManifest)
	g.outcome("manifest", err)
	_, err = g.push(g.ref("out@"+m.Digest), m.Digest)
	g.outcome("push", err)
	found := func(artifactType string) (n int, err error) {
		req := hostv1lite.ReferrersRequest{Ref: g.ref("out:seed"), ArtifactType: artifactType}
		return n, g.each(hostv1lite.RegistryReferrers, &req, func(st stream) error {
			var d hostv1lite.Descriptor
			if err := st.recv(&d); err != nil {
				return err
			}
			if n++; artifactType == "" {
				g.print("%s %t", d.ArtifactType, d.Digest == m.Digest)
			}
			return nil
		})
	}
	_, err = found("")
	g.outcome("referrers", err)
	n, err := found("text/other")
	g.outcome("none of another type", err)
	g.print("%d", n)
}

func registryNoReferrers(g *guest) {
	n := 0
	err := g.each(hostv1lite.RegistryReferrers, &hostv1lite.ReferrersRequest{Ref: g.ref("app:v1")}, func(st stream) error {
		var d hostv1lite.Descriptor
		if err := st.recv(&d); err != nil {
			return err
		}
		n++
		return nil
	})
	g.outcome("referrers", err)
	g.print("%d", n)
}

func logBatch(g *guest) {
	g.outcome("log", g.call(hostv1lite.LogWrite, &hostv1lite.LogBatch{Records: []hostv1lite.LogRecord{
		{Level: 0, Message: "first", Attributes: map[string]string{"k": "v"}}, {Level: 8, Message: "second"},
	}}, &hostv1lite.Empty{}))
}

func logControl(g *guest) {
	g.outcome("log", g.call(hostv1lite.LogWrite, &hostv1lite.LogBatch{Records: []hostv1lite.LogRecord{
		{Level: 4, Message: "a\x1b[31mb\nc\u202ed"},
	}}, &hostv1lite.Empty{}))
}

func logTooLarge(g *guest) {
	g.outcome("log", g.call(hostv1lite.LogWrite, &hostv1lite.LogBatch{Records: []hostv1lite.LogRecord{
		{Message: "lost with the other"}, {Message: strings.Repeat("x", hostabi.MaxLogRecord+1)},
	}}, &hostv1lite.Empty{}))
}

func termPrompt(kind, text string) func(*guest) {
	return func(g *guest) {
		for _, fallback := range []string{"", "dflt"} {
			var r hostv1lite.PromptReply
			err := g.call(hostv1lite.TermPrompt, &hostv1lite.PromptRequest{Kind: kind, Text: text, Fallback: fallback}, &r)
			g.outcome("prompt", err)
			if err == nil {
				g.print("%s defaulted %t", r.Answer, r.Defaulted)
			}
		}
	}
}

func termRows(g *guest) {
	g.outcome("rows", g.call(hostv1lite.TermRows, &hostv1lite.RowBatch{Columns: []string{"n"}, RowsJson: []string{`{"n":1}`}}, &hostv1lite.Empty{}))
	g.outcome("rows", g.call(hostv1lite.TermRows, &hostv1lite.RowBatch{RowsJson: []string{`{"n":2}`}, End: true, Format: "json"}, &hostv1lite.Empty{}))
	g.outcome("after the end", g.call(hostv1lite.TermRows, &hostv1lite.RowBatch{RowsJson: []string{`{"n":3}`}}, &hostv1lite.Empty{}))
}

func termRowsAtExit(g *guest) {
	g.outcome("rows", g.call(hostv1lite.TermRows, &hostv1lite.RowBatch{Columns: []string{"n"}, RowsJson: []string{`{"n":1}`}}, &hostv1lite.Empty{}))
}

func termBadRow(g *guest) {
	for _, row := range []string{`[1]`, `{`, `"x"`, ``} {
		g.outcome(row, g.call(hostv1lite.TermRows, &hostv1lite.RowBatch{RowsJson: []string{row}}, &hostv1lite.Empty{}))
	}
}

func termProgress(g *guest) {
	for n := range int64(5) {
		g.outcome("report", g.call(hostv1lite.TermReport, &hostv1lite.ProgressBatch{Items: []hostv1lite.Progress{
			{Id: "a", Label: "work", Current: n, Total: 4, State: map[bool]string{true: "done", false: "run"}[n == 4]},
		}}, &hostv1lite.Empty{}))
	}
}
