package client

import "context"

// watch does nothing: the host ends host calls at a signal, and then the guest.
func watch(ctx context.Context) (context.Context, func()) { return ctx, func() {} }
