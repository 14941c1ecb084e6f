package client

import (
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

type (
	// Digest is the content address of a blob.
	Digest = hostabi.Digest
	// Descriptor says what a blob is: media type, digest, size.
	Descriptor = hostabi.Descriptor
	// Platform is the operating system and architecture of an artifact.
	Platform = hostabi.Platform
	// Event is a message of the bus.
	Event = hostabi.Event
	// StateEntry is one value of the key/value store.
	StateEntry = hostabi.StateEntry
	// BlobInfo is what the cache knows about a blob.
	BlobInfo = hostabi.BlobInfo
	// CacheUsage is the size of the cache.
	CacheUsage = hostabi.CacheUsage
	// EvictOptions choose what Cache.Evict removes.
	EvictOptions = hostabi.EvictOptions
	// Verdict is what Cache.Verify says of one blob.
	Verdict = hostabi.Verdict
	// Error is a failed host call; use errors.AsType, or errors.Is with the Err values.
	Error = hostabi.Error
)

// moment is a time on the wire, 0 for none.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// millis is a duration on the wire; what is shorter than a millisecond but not 0 is one.
func millis(d time.Duration) int64 {
	if d > 0 && d < time.Millisecond {
		return 1
	}
	return d.Milliseconds()
}

func descriptor(d *hostv1lite.Descriptor) Descriptor {
	out := Descriptor{
		MediaType: d.MediaType, Digest: Digest(d.Digest), Size: d.Size, ArtifactType: d.ArtifactType,
		Annotations: d.Annotations, Ref: d.Ref,
	}
	if p := d.Platform; p != nil {
		out.Platform = &Platform{OS: p.Os, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OsVersion}
	}
	return out
}

func platform(p Platform) hostv1lite.Platform {
	return hostv1lite.Platform{Os: p.OS, Architecture: p.Architecture, Variant: p.Variant, OsVersion: p.OSVersion}
}

func blobInfo(b *hostv1lite.BlobInfo) BlobInfo {
	return BlobInfo{
		Digest: Digest(b.Digest), Size: b.Size, MediaType: b.MediaType,
		Created: moment(b.Created), Used: moment(b.Used), Expires: moment(b.Expires),
		Pinned: b.Pinned, Sources: b.Sources, Annotations: b.Annotations,
	}
}

func event(e *hostv1lite.Event) Event {
	out := Event{
		ID: e.Id, Topic: e.Topic, Source: e.Source, Time: moment(e.Time), TraceID: e.TraceId, ContentType: e.ContentType,
		Data: e.Data, Attributes: e.Attributes, Hops: e.Hops, Dropped: e.Dropped,
	}
	for _, d := range e.Blobs {
		out.Blobs = append(out.Blobs, Digest(d))
	}
	return out
}

func stateEntry(e *hostv1lite.StateEntry) StateEntry {
	return StateEntry{
		Owner: hostabi.PluginName(e.Owner), Key: e.Key, Value: e.Value, Revision: e.Revision,
		Created: moment(e.Created), Updated: moment(e.Updated), Expires: moment(e.Expires),
	}
}
