// Keeps what client-go's shared informers keep of a server, and tells it when it is asked: a real Kubernetes client for
// the tests, in both of its ways of listing (KUBE_FEATURE_WatchListClient=true or false).
//
//	informers --server http://127.0.0.1:8460 chats agents agentsnapshots
//
// For every line of standard input it writes one line of JSON: {"synced": …, "objects": {"chats": […], …}}, the objects
// whole, in the order of their keys. It ends with its input.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

type answer struct {
	Synced  bool                        `json:"synced"`
	Objects map[string][]map[string]any `json:"objects"`
}

func main() {
	server := flag.String("server", "", "where the API is")
	flag.Parse()
	if err := run(*server, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(server string, resources []string) error {
	// No limit on requests: how the client spares a server is not what is tested.
	client, err := dynamic.NewForConfig(&rest.Config{Host: server, QPS: -1})
	if err != nil {
		return err
	}
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	informers := map[string]cache.SharedIndexInformer{}
	for _, resource := range resources {
		kind := schema.GroupVersionResource{Group: "moorline.dev", Version: "v1alpha1", Resource: resource}
		informers[resource] = factory.ForResource(kind).Informer()
	}
	stop := make(chan struct{})
	defer close(stop)
	factory.Start(stop)

	asked, answers := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for asked.Scan() {
		if err := answers.Encode(look(informers)); err != nil {
			return err
		}
	}
	return asked.Err()
}

func look(informers map[string]cache.SharedIndexInformer) answer {
	told := answer{Synced: true, Objects: map[string][]map[string]any{}}
	for resource, informer := range informers {
		told.Synced = told.Synced && informer.HasSynced()
		keys := informer.GetStore().ListKeys()
		sort.Strings(keys)
		told.Objects[resource] = []map[string]any{}
		for _, key := range keys {
			// Gone since the keys were listed: then it is not there.
			if object, exists, err := informer.GetStore().GetByKey(key); err == nil && exists {
				told.Objects[resource] = append(told.Objects[resource], object.(*unstructured.Unstructured).Object)
			}
		}
	}
	return told
}
