//go:build !linux

package main

import "errors"

func benchVhost(*report) error { return errors.New("vhost-user needs Linux") }
