package native

import (
	"context"

	"github.com/delivery-station/ds/hostabi"
)

func (r *run) goplugin(ctx context.Context) error { return r.fail(hostabi.ReasonInternal, "not built") }
