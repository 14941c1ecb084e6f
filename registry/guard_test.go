package registry_test

import (
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/registry"
)

var (
	_ host.Puller = (*registry.Client)(nil)
	_ host.Pusher = (*registry.Client)(nil)
)
