package hosttest_test

import (
	"testing"

	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hosttest"
	"github.com/delivery-station/ds/internal/events"
	"github.com/delivery-station/ds/internal/state"
)

// owners are the real parts; what is not built yet is a small one in memory.
func owners(t testing.TB, s hosttest.Setup) hosttest.Owners {
	bus := events.New(events.Options{Clock: s.Clock})
	t.Cleanup(func() { _ = bus.Close() })
	store := state.Memory(state.Options{Clock: s.Clock})
	registry := hosttest.NewMemoryRegistry()
	registry.Offline = s.Offline
	return hosttest.Owners{
		Cache:  hosttest.NewMemoryCache(s.Dir).View,
		Puller: func() (host.Puller, error) { return registry, nil },
		Pusher: func() (host.Pusher, error) { return registry, nil },
		Events: bus, Publisher: events.WithPublisher,
		State:    func() (host.State, error) { return store, nil },
		Registry: "registry.example/kit",
	}
}

func TestInProcess(t *testing.T) {
	t.Parallel()
	hosttest.Run(t, hosttest.InProcess(), owners)
}
