package dstest

import (
	"net/http"
	"strings"
	"time"
)

// Fault is something that goes wrong with matching requests.
type Fault struct {
	Method string // "" = any
	Path   string // part of the path
	Skip   int    // requests to let through first
	Times  int    // how often; 0 = always
	// EachPath counts Skip and Times for every path of its own: "every blob is cut once". All uploads of one
	// blob are one path.
	EachPath bool

	Status  int           // answer this instead
	Header  http.Header   // added to the answer
	Body    string        // with Status
	CutAt   int64         // end the connection after so many body bytes; -1 = before any header
	StallAt int64         // after so many body bytes nothing more comes, until the client is gone
	Flip    bool          // the first body byte is wrong
	Delay   time.Duration // before anything
}

type armed struct {
	Fault
	seen map[string]int
}

// Inject adds a fault; the first that matches a request and is not used up decides.
func (r *RegistryServer) Inject(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, &armed{f, make(map[string]int)})
}

// Heal removes all faults.
func (r *RegistryServer) Heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = nil
}

func (r *RegistryServer) fault(q *http.Request) (Fault, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.faults {
		if (a.Method != "" && a.Method != q.Method) || !strings.Contains(q.URL.Path, a.Path) {
			continue
		}
		key := ""
		if a.EachPath {
			key = q.URL.Path
			if place, _, ok := strings.Cut(key, "/blobs/uploads/"); ok {
				key = place + "/blobs/uploads/" + q.URL.Query().Get("digest")
			}
		}
		if a.seen[key]++; a.seen[key] <= a.Skip || (a.Times > 0 && a.seen[key] > a.Skip+a.Times) {
			continue
		}
		return a.Fault, true
	}
	return Fault{}, false
}

// serve applies f and reports whether the request goes on to the registry.
func (f Fault) serve(w *recorder, q *http.Request) bool {
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-q.Context().Done():
			return false
		}
	}
	if f.CutAt < 0 {
		panic(http.ErrAbortHandler)
	}
	for k, v := range f.Header {
		w.Header()[http.CanonicalHeaderKey(k)] = v
	}
	w.cutAt, w.flip = f.CutAt, f.Flip
	if f.StallAt > 0 {
		w.cutAt, w.gone = f.StallAt, q.Context().Done()
	}
	if f.Status == 0 {
		return true
	}
	w.WriteHeader(f.Status)
	if !w.head {
		_, _ = w.Write([]byte(f.Body)) // the client may be gone
	}
	return false
}
