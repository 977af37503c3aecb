// A minimal program of controller-runtime: a manager whose cache holds the Chats of a cluster as typed objects, which is what
// its users have by default, and nothing that does anything with them. What Moorline's memory is measured against
// (benches/cluster.rs).
//
//	cached --kubeconfig FILE
//
// When its cache is filled it writes the number of Chats in it, as one line. It ends with its input.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

func main() {
	log.SetLogger(zap.New())
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	flag.Parse() // controller-runtime has --kubeconfig
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	addTo(scheme)
	// Not the port of its metrics: others of them may run here.
	manager, err := ctrl.NewManager(config, ctrl.Options{Scheme: scheme, Metrics: server.Options{BindAddress: "0"}})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	informer, err := manager.GetCache().GetInformer(ctx, &Chat{})
	if err != nil {
		return err
	}
	// Counted as they come: a list of them would be memory that the cache does not need.
	var chats atomic.Int64
	counted, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { chats.Add(1) }})
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- manager.Start(ctx) }()
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), counted.HasSynced) {
			fmt.Println(chats.Load())
		}
		_, err := io.Copy(io.Discard, os.Stdin)
		ended <- err
	}()
	return <-ended
}
