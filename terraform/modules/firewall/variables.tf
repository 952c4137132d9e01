variable "name" {
  description = "Prefix of the security groups' names."
  type        = string
}

variable "private_hosts" {
  description = "Picture hosts inside the VPC that the Lambda may fetch from: name, TCP port, and the IPv4 network all their addresses lie in."
  type = list(object({
    cidr = string
    host = string
    port = number
  }))
  default = []

  validation {
    condition = alltrue([
      for host in var.private_hosts : can(regex("^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$", host.host))
      && lower(host.host) != "localhost" && !endswith(lower(host.host), ".localhost")
    ])
    error_message = "private_hosts: each host is the DNS name of a machine inside the VPC; remove URLs, wildcards and localhost."
  }

  validation {
    # /16 or narrower, so that no range can hide loopback or link-local inside a wider one.
    condition = alltrue([
      for host in var.private_hosts : can(cidrnetmask(host.cidr)) && try(tonumber(split("/", host.cidr)[1]) >= 16, false)
    ])
    error_message = "private_hosts: each cidr is an IPv4 range of /16 or narrower around the host's addresses, such as 10.20.4.0/24."
  }

  validation {
    condition = alltrue([
      for host in var.private_hosts : !can(regex("^(0|127|169\\.254|22[4-9]|2[34][0-9]|25[0-5])\\.", host.cidr))
    ])
    error_message = "private_hosts: loopback (127.), link-local and metadata (169.254.), 0. and multicast ranges are never picture hosts; name the range inside the VPC."
  }

  validation {
    condition     = alltrue([for host in var.private_hosts : host.port >= 1 && host.port <= 65535 && floor(host.port) == host.port])
    error_message = "private_hosts: each port is a whole number from 1 to 65535."
  }
}

variable "vpc_id" {
  description = "VPC the workloads run in."
  type        = string
}
