package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
)

// maxRecord bounds the JSON of a record; metadata that does not fit is left out of lists.
const maxRecord = 4 << 10

func listCommand() client.Command {
	return client.Command{
		Name:    "list",
		Summary: "List the artifacts that were pulled or pushed and are in the cache",
		Run:     list,
	}
}

// list shows what porter remembers, as far as the cache still has it: the cache is the truth, and a record of
// what it evicted is dropped.
func list(ctx context.Context, in *client.Invocation) error {
	var entries []client.StateEntry
	for e, err := range in.ListState(ctx, recordPrefix) {
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	docs := make([]document, 0, len(entries))
	for _, e := range entries {
		d, ok := readRecord(e)
		if ok {
			info, err := in.Cache().Stat(ctx, d.Digest)
			if err != nil && !errors.Is(err, client.ErrNotFound) {
				return err
			}
			ok = err == nil
			d.Cached, d.CachedAt = true, info.Created
		}
		if !ok {
			// A pull that writes the record meanwhile wins.
			if err := in.DeleteState(ctx, e.Key, client.IfRevision(e.Revision)); err != nil && !errors.Is(err, client.ErrConflict) {
				return err
			}
			continue
		}
		docs = append(docs, d)
	}
	slices.SortStableFunc(docs, func(a, b document) int {
		return cmp.Or(strings.Compare(a.Reference, b.Reference), a.CachedAt.Compare(b.CachedAt), strings.Compare(a.ID, b.ID))
	})
	host, err := in.Describe(ctx)
	if err != nil {
		return err
	}
	if host.Terminal.StdoutTTY {
		return in.Rows(docs) // a table
	}
	return printRows(ctx, in, docs)
}

// readRecord decodes a record; false means that it is none of ours.
func readRecord(e client.StateEntry) (d document, ok bool) {
	if json.Unmarshal(e.Value, &d) != nil || !d.Digest.Valid() || d.recordKey() != e.Key {
		return document{}, false
	}
	d.ID = id(d.Digest)
	return d, true
}

// remember makes doc appear in later lists. It never fails the command that it is part of.
func remember(ctx context.Context, in *client.Invocation, doc *document, fresh bool) {
	key := doc.recordKey()
	if !fresh {
		if _, err := in.GetState(ctx, key); err == nil {
			return
		}
	}
	err := claim(ctx, in, doc.Digest)
	if err == nil {
		_, err = in.SetState(ctx, key, doc.record())
	}
	if err != nil {
		in.Printf("warning: %s will be missing in the list: %v\n", doc.Reference, err)
	}
}

// record is what is remembered of d.
func (d *document) record() []byte {
	r := document{ID: d.ID, Reference: d.Reference, Digest: d.Digest, Size: d.Size, Metadata: d.Metadata}
	b, _ := json.Marshal(r) // strings and numbers
	if len(b) > maxRecord {
		r.Metadata = nil
		b, _ = json.Marshal(r)
	}
	return b
}

// claim makes a pulled manifest one of porter's own blobs, by storing the same bytes once more: later runs may
// only look at their own, so list could not tell whether the artifact is still there.
func claim(ctx context.Context, in *client.Invocation, d client.Digest) error {
	b, err := readBlob(ctx, in, d)
	if err != nil {
		return err
	}
	_, err = in.Cache().Put(ctx, bytes.NewReader(b), client.WithExpected(d, int64(len(b))))
	return err
}

// readBlob reads a manifest from the cache.
func readBlob(ctx context.Context, in *client.Invocation, d client.Digest) ([]byte, error) {
	r, err := in.Cache().Open(ctx, d)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, hostabi.MaxMessage+1))
	if err == nil && len(b) > hostabi.MaxMessage {
		err = hostabi.Errorf(hostabi.ReasonTooLarge, "manifest %s has more than %d MiB", d, hostabi.MaxMessage>>20)
	}
	return b, errors.Join(err, r.Close())
}
