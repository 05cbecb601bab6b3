package service

import (
	"context"

	"udm/ctl"
	"udm/dm"
)

// Parameters belong to the daemon, like those of a loaded kernel module: they are not
// saved. "udm daemon --param" sets them at every start.

// Params implements [ctl.Service].
func (s *Service) Params(context.Context) ([]ctl.Param, error) {
	ps := make([]ctl.Param, 0)
	for _, p := range s.control.Params() {
		ps = append(ps, param(p))
	}
	return ps, nil
}

func param(p *dm.Param) ctl.Param { return ctl.Param{Name: p.Name, Value: p.Get(), Doc: p.Doc} }

// SetParam implements [ctl.Service].
func (s *Service) SetParam(_ context.Context, r ctl.SetParam) (ctl.Param, error) {
	p, err := dm.FindParam(s.control.Params(), r.Name)
	if err != nil {
		return ctl.Param{}, err
	}
	p.Set(r.Value)
	s.log.Info("a parameter was set", "name", p.Name, "value", p.Get())
	return param(p), nil
}
