//! Labels, annotations and finalizers that users, tests and neighbouring operators look for.

/// API group of the KubeVirt CR and of the core kinds.
pub const GROUP: &str = "kubevirt.io";

pub mod label {
    //! Label keys and their fixed values.

    /// Who manages an object; the value is [`MANAGED_BY_OPERATOR`].
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    pub const MANAGED_BY_OPERATOR: &str = "virt-operator";
    /// An older value of [`MANAGED_BY`] that still counts as ours when objects are looked up.
    pub const MANAGED_BY_OPERATOR_OLD: &str = "kubevirt-operator";
    pub const NAME: &str = "app.kubernetes.io/name";
    pub const VERSION: &str = "app.kubernetes.io/version";
    pub const PART_OF: &str = "app.kubernetes.io/part-of";
    pub const COMPONENT: &str = "app.kubernetes.io/component";
    /// The value of [`COMPONENT`] when the CR names no product component.
    pub const COMPONENT_DEFAULT: &str = "kubevirt";
    /// On pods and their owners: the component's name. On other objects: empty.
    pub const KUBEVIRT: &str = "kubevirt.io";
    /// On the operator's own CRD, in place of [`KUBEVIRT`], so that an uninstall never selects it.
    pub const OPERATOR: &str = "operator.kubevirt.io";
    /// Selects the pods whose port `metrics` Prometheus scrapes.
    pub const PROMETHEUS: &str = "prometheus.kubevirt.io";
    /// Lets network policies find the pods that talk to the cluster's services.
    pub const CLUSTER_SERVICES: &str = "np.kubevirt.io/allow-access-cluster-services";
    /// Marks ConfigMaps and Jobs of the install-strategy protocol.
    pub const INSTALL_STRATEGY: &str = "kubevirt.io/install-strategy";
    /// On the suite's namespace: `true`, so that the platform's monitoring looks into it.
    pub const CLUSTER_MONITORING: &str = "openshift.io/cluster-monitoring";
    /// On nodes that can run VMs: `true`.
    pub const SCHEDULABLE: &str = "kubevirt.io/schedulable";
}

pub mod annotation {
    //! Annotation keys.

    pub const STRATEGY_VERSION: &str = "kubevirt.io/install-strategy-version";
    pub const STRATEGY_REGISTRY: &str = "kubevirt.io/install-strategy-registry";
    pub const STRATEGY_IDENTIFIER: &str = "kubevirt.io/install-strategy-identifier";
    pub const STRATEGY_ENCODING: &str = "kubevirt.io/install-strategy-cm-encoding";
    /// The CR's generation at an object's last write.
    pub const GENERATION: &str = "kubevirt.io/generation";
    pub const CUSTOMIZER: &str = "kubevirt.io/customizer-identifier";
    pub const LATEST_OBSERVED_API_VERSION: &str = "kubevirt.io/latest-observed-api-version";
    pub const STORAGE_OBSERVED_API_VERSION: &str = "kubevirt.io/storage-observed-api-version";
    /// How long a certificate's Secret is meant to be valid, as a Go duration.
    pub const CERTIFICATE_DURATION: &str = "kubevirt.io/duration";
    /// On webhooks and aggregated APIs: the Secret their server's certificate is in.
    pub const CERTIFICATE_SECRET: &str = "certificates.kubevirt.io/secret";
    pub const REQUIRED_SCC: &str = "openshift.io/required-scc";
}

pub mod finalizer {
    //! Finalizers of the KubeVirt CR and of CRDs.

    pub const KUBEVIRT: &str = "kubevirt.io/foregroundDeleteKubeVirt";
    /// The name older releases used; it is replaced by [`KUBEVIRT`].
    pub const KUBEVIRT_OLD: &str = "foregroundDeleteKubeVirt";
    pub const CRD: &str = "kubevirt.io/virtOperatorFinalizer";
}
