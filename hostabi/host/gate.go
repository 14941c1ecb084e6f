package host

import (
	"context"
	"sync"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
)

// rule decides whether the call may go on, from the decoded request. It asks the Box with canonical
// resources and decides nothing itself. A method without a rule is refused.
type rule func(c *call, req any) error

// quick are the methods whose handlers neither wait nor touch a disk.
var quick = map[string]bool{
	hostv1.Meta_Describe_FullMethodName: true,
	hostv1.Config_Get_FullMethodName:    true,
	hostv1.Config_List_FullMethodName:   true,
}

// rules names the capability and the canonical resource of every method (capabilities.md section 2).
var rules = map[string]rule{
	hostv1.Meta_Describe_FullMethodName: free,
	hostv1.Log_Write_FullMethodName:     free,
	hostv1.Term_Report_FullMethodName:   free,
	hostv1.Term_Rows_FullMethodName:     free,
	hostv1.Term_Prompt_FullMethodName:   gatePrompt,

	hostv1.Config_Get_FullMethodName:  gateConfigGet,
	hostv1.Config_List_FullMethodName: some(hostabi.ConfigRead, "own"),

	hostv1.Cache_Stat_FullMethodName:   gateBlobRead,
	hostv1.Cache_Open_FullMethodName:   gateBlobRead,
	hostv1.Cache_List_FullMethodName:   some(hostabi.CacheRead, "own"),
	hostv1.Cache_Usage_FullMethodName:  needs(hostabi.CacheRead, "any"),
	hostv1.Cache_Verify_FullMethodName: gateVerify,
	hostv1.Cache_Create_FullMethodName: gateCreate,
	hostv1.Cache_Commit_FullMethodName: needs(hostabi.CacheWrite, "own"),
	hostv1.Cache_Close_FullMethodName:  free, // of a handle of this session
	hostv1.Cache_Pin_FullMethodName:    gatePin,
	hostv1.Cache_Remove_FullMethodName: gateRemove,
	hostv1.Cache_Evict_FullMethodName:  needs(hostabi.CacheWrite, "any"),

	hostv1.Registry_Resolve_FullMethodName:   gatePull,
	hostv1.Registry_Pull_FullMethodName:      gatePull,
	hostv1.Registry_ListTags_FullMethodName:  gatePull,
	hostv1.Registry_Referrers_FullMethodName: gatePull,
	hostv1.Registry_Push_FullMethodName:      gatePush,
	hostv1.Registry_Tag_FullMethodName:       gatePush,

	hostv1.Events_Publish_FullMethodName:   gatePublish,
	hostv1.Events_Subscribe_FullMethodName: gateSubscribe,
	hostv1.Events_Poll_FullMethodName:      gatePoll,

	hostv1.State_Get_FullMethodName:    gateStateGet,
	hostv1.State_Put_FullMethodName:    gateStatePut,
	hostv1.State_Add_FullMethodName:    gateStateAdd,
	hostv1.State_Delete_FullMethodName: gateStateDelete,
	hostv1.State_List_FullMethodName:   some(hostabi.StateRead, "own"),

	hostv1.Plugins_List_FullMethodName: some(hostabi.PluginsCall, "*/*"),
	hostv1.Plugins_Call_FullMethodName: gateCall,

	hostv1.Http_Do_FullMethodName: gateHTTP,
}

// gate runs the rule of the call's method.
func (c *call) gate(req any) error {
	if c.m.rule == nil {
		return hostabi.Errorf(hostabi.ReasonCapabilityDenied, "method %s: has no rule in this host", c.m.name)
	}
	return c.m.rule(c, req)
}

// free is the rule of methods that need no capability.
func free(*call, any) error { return nil }

// needs is the rule of methods whose resource does not depend on the request.
func needs(cp hostabi.Capability, resource string) rule {
	return func(c *call, _ any) error { return c.need(cp, resource) }
}

// some is the rule of methods that list: any scope of cp opens them and the handler leaves out what the Box
// does not allow. resource is what a denial names.
func some(cp hostabi.Capability, resource string) rule {
	return func(c *call, _ any) error {
		if c.s.box.Has(cp) {
			return nil
		}
		return c.need(cp, resource)
	}
}

// granted remembers what the Box has allowed. A Box never changes, so this decides nothing; it saves reading
// the same resource again for every call.
type granted struct {
	mu   sync.RWMutex
	uses map[use]struct{}
}

type use struct {
	cp       hostabi.Capability
	resource string
}

// maxGranted bounds the memory of a session that names ever new resources.
const maxGranted = 1024

func (g *granted) has(u use) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	_, ok := g.uses[u]
	return ok
}

func (g *granted) add(u use) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.uses == nil {
		g.uses = make(map[use]struct{})
	}
	if len(g.uses) < maxGranted {
		g.uses[u] = struct{}{}
	}
}

// need asks the Box, and tells log and bus when it refuses.
func (c *call) need(cp hostabi.Capability, resource string) error {
	s, u := c.s, use{cp, resource}
	if s.granted.has(u) {
		return nil
	}
	err := s.box.Check(cp, resource)
	if err == nil {
		s.granted.add(u)
		return nil
	}
	s.r.o.Log.InfoContext(c, "capability denied", "plugin", s.p.Name, "capability", cp,
		"resource", clean(resource, hostabi.MaxMethod), "method", c.m.name, "invocation", s.inv.ID)
	s.hostEvent(c, "capability.denied", map[string]any{
		"plugin": s.p.Name, "cap": cp, "resource": resource, "invocation": s.inv.ID,
	})
	return err
}

// allows asks the Box about one item of a listing.
func (s *Session) allows(cp hostabi.Capability, resource string) bool {
	return s.box.Allowed(cp, resource)
}

// hostEvent publishes a host event if somebody listens. A bus that refuses it is not the caller's problem.
func (s *Session) hostEvent(ctx context.Context, topic string, data map[string]any) {
	bus := s.r.o.Events
	if bus == nil || !bus.Wanted(topic) {
		return
	}
	if err := s.publishHost(context.WithoutCancel(ctx), bus, topic, data); err != nil {
		s.r.o.Log.Debug("host event lost", "topic", topic, "err", err)
	}
}
