package service

import (
	"context"

	"udm/ctl"
	"udm/ctl/server/handover"
	"udm/targets/crypt"
)

// Keys in the key store are in memory only: a new daemon has none, and devices whose tables
// name them wait. A daemon that replaces this one gets them.

// Keys implements [ctl.Service].
func (s *Service) Keys(context.Context) ([]ctl.Key, error) {
	keys := make([]ctl.Key, 0)
	names, sizes := s.keys.List()
	for i, n := range names {
		keys = append(keys, ctl.Key{KeyName: ctl.KeyName{Type: n.Kind, Description: n.Description}, Size: sizes[i]})
	}
	return keys, nil
}

// SetKey implements [ctl.Service].
func (s *Service) SetKey(ctx context.Context, k ctl.SetKey) error {
	if err := s.settled(ctx); err != nil {
		return err
	}
	if err := s.keys.Set(crypt.KeyName{Kind: k.Type, Description: k.Description}, k.Key); err != nil {
		return err
	}
	s.log.Info("a key was set", "type", k.Type, "description", k.Description)
	s.state.Retry(ctx)
	return nil
}

// RemoveKey implements [ctl.Service].
func (s *Service) RemoveKey(_ context.Context, n ctl.KeyName) error {
	return s.keys.Remove(crypt.KeyName{Kind: n.Type, Description: n.Description})
}

// keysPart is the part of a bundle with the keys.
const keysPart = "keys"

// handedKey is a key for the next process.
type handedKey struct {
	Name crypt.KeyName
	Key  []byte
}

func (s *Service) handKeys(b *handover.Bundle) error {
	list := make([]handedKey, 0)
	names, _ := s.keys.List()
	for _, n := range names {
		if k, err := s.keys.Key(n.Kind, n.Description); err == nil { // else it was removed
			list = append(list, handedKey{n, k})
			defer clear(k)
		}
	}
	return b.Put(keysPart, list)
}

func (s *Service) takeKeys(b *handover.Bundle) error {
	var list []handedKey
	if _, there, err := b.Take(keysPart, &list); err != nil || !there {
		return err // a process of an older version has none
	}
	for _, k := range list {
		if err := s.keys.Set(k.Name, k.Key); err != nil {
			return err
		}
	}
	return nil
}
