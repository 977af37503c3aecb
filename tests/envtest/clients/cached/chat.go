package main

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Chat is a chat as crds/chats.yaml has it, as kubebuilder would have its author write it.
type Chat struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              ChatSpec   `json:"spec,omitempty"`
	Status            ChatStatus `json:"status,omitempty"`
}

// ChatList is a list of them.
type ChatList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Chat `json:"items"`
}

// Name names another object of the namespace.
type Name struct {
	Name string `json:"name"`
}

// ChatSpec is what is asked of a chat.
type ChatSpec struct {
	Owner          *string `json:"owner,omitempty"`
	Title          string  `json:"title,omitempty"`
	AgentRef       *Name   `json:"agentRef,omitempty"`
	WorkspaceRef   *Name   `json:"workspaceRef,omitempty"`
	ParentRef      *Name   `json:"parentRef,omitempty"`
	RefreshPolicy  string  `json:"refreshPolicy,omitempty"`
	Suspend        bool    `json:"suspend,omitempty"`
	Archived       bool    `json:"archived,omitempty"`
	DeletionPolicy string  `json:"deletionPolicy,omitempty"`
}

// Agent is which agent.
type Agent struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// Pinned is what a chat is moored to.
type Pinned struct {
	Snapshot      string      `json:"snapshot"`
	Hash          string      `json:"hash"`
	Agent         Agent       `json:"agent"`
	Cause         string      `json:"cause"`
	At            metav1.Time `json:"at"`
	ResourceCount int32       `json:"resourceCount"`
	Error         string      `json:"error,omitempty"`
}

// ChatStatus is what is so of a chat.
type ChatStatus struct {
	ObservedGeneration   int64              `json:"observedGeneration,omitempty"`
	State                string             `json:"state,omitempty"`
	LastError            string             `json:"lastError,omitempty"`
	BoundAgent           *Agent             `json:"boundAgent,omitempty"`
	Pinned               *Pinned            `json:"pinned,omitempty"`
	Dirty                bool               `json:"dirty,omitempty"`
	DirtySince           *metav1.Time       `json:"dirtySince,omitempty"`
	LastHandledRefresh   string             `json:"lastHandledRefresh,omitempty"`
	LastHandledReconcile string             `json:"lastHandledReconcile,omitempty"`
	Conditions           []metav1.Condition `json:"conditions,omitempty"`
}

func copied[T any](it *T) *T {
	if it == nil {
		return nil
	}
	other := *it
	return &other
}

// DeepCopyObject is what a kind has to have; nobody here asks for a copy of the whole cache.
func (it *Chat) DeepCopyObject() runtime.Object {
	other := *it
	it.ObjectMeta.DeepCopyInto(&other.ObjectMeta)
	other.Spec.Owner = copied(it.Spec.Owner)
	other.Spec.AgentRef, other.Spec.WorkspaceRef = copied(it.Spec.AgentRef), copied(it.Spec.WorkspaceRef)
	other.Spec.ParentRef = copied(it.Spec.ParentRef)
	other.Status.BoundAgent, other.Status.Pinned = copied(it.Status.BoundAgent), copied(it.Status.Pinned)
	other.Status.DirtySince = it.Status.DirtySince.DeepCopy()
	other.Status.Conditions = append([]metav1.Condition(nil), it.Status.Conditions...)
	return &other
}

// DeepCopyObject is what a kind has to have.
func (it *ChatList) DeepCopyObject() runtime.Object {
	other := *it
	it.ListMeta.DeepCopyInto(&other.ListMeta)
	other.Items = make([]Chat, len(it.Items))
	for n := range it.Items {
		other.Items[n] = *it.Items[n].DeepCopyObject().(*Chat)
	}
	return &other
}

func addTo(scheme *runtime.Scheme) {
	version := schema.GroupVersion{Group: "moorline.dev", Version: "v1alpha1"}
	scheme.AddKnownTypes(version, &Chat{}, &ChatList{})
	metav1.AddToGroupVersion(scheme, version)
}
