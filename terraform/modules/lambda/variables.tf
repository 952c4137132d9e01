locals {
  # No host of a VPC lives here: "this network", loopback, link-local (with the metadata and credential services),
  # multicast and reserved space; in IPv6 also the mapped and translated IPv4 ranges and AWS's own fd00:ec2::/32.
  never_private_cidrs = [
    "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3",
    "::/3", "fe00::/7", "fd00:ec2::/32",
  ]
}

variable "account_id" {
  description = "AWS account, twelve digits."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id is \"${var.account_id}\": give the twelve digits of the AWS account."
  }
}

variable "architecture" {
  description = "Processor architecture. The package is pure Python, so arm64 works too."
  type        = string
  default     = "x86_64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "architecture is ${var.architecture}; Lambda has arm64 and x86_64."
  }
}

variable "endpoint_name" {
  description = "Name of the SageMaker endpoint that the function invokes."
  type        = string
}

variable "kms_key_arn" {
  description = "ARN of the KMS key for the environment variables, the log group and the dead-letter queue."
  type        = string
}

variable "log_retention_days" {
  description = "How long log lines are kept, in days. One of CloudWatch's own values; 0 keeps them for ever."
  type        = number

  validation {
    condition     = contains([0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days is ${var.log_retention_days}; CloudWatch accepts 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 and 3653 days, or 0 for no expiry."
  }
}

variable "memory_mb" {
  description = "Memory of one execution environment, in MB; processor time grows with it."
  type        = number
  default     = 512

  validation {
    condition     = var.memory_mb >= 128 && var.memory_mb <= 10240
    error_message = "memory_mb is ${var.memory_mb}; Lambda accepts 128 to 10240 MB."
  }
}

variable "name" {
  description = "Name of the function, of its log group (/aws/lambda/NAME) and of its dead-letter queue (NAME-lambda-dead-letters)."
  type        = string
}

variable "package_path" {
  description = "Path of the deployment package, a zip."
  type        = string
}

variable "partition" {
  description = "AWS partition: aws, aws-cn or aws-us-gov."
  type        = string
}

variable "private_hosts" {
  description = "Hosts inside the VPC that pictures may come from besides the public internet: the host's name, its port, and the CIDR block its addresses must lie in."
  type = list(object({
    host = string
    port = number
    cidr = string
  }))
  default = []

  validation {
    condition = alltrue([
      for entry in var.private_hosts : length(entry.host) <= 253 && can(regex(
        "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$", entry.host
      ))
    ])
    error_message = "private_hosts holds a host that is not a lower-case DNS name or IPv4 address: ${join(", ", var.private_hosts[*].host)}. Give the bare name, such as pictures.internal, without scheme, port or path."
  }

  validation {
    condition = alltrue([
      for entry in var.private_hosts : !can(regex("(^|\\.)localhost$|^127\\.|^169\\.254\\.|^0\\.", entry.host))
    ])
    error_message = "private_hosts holds a loopback or link-local host: ${join(", ", var.private_hosts[*].host)}. Name a host inside the VPC."
  }

  validation {
    condition = alltrue([
      for entry in var.private_hosts : entry.port >= 1 && entry.port <= 65535 && floor(entry.port) == entry.port
    ])
    error_message = "private_hosts holds a port outside 1 to 65535: ${join(", ", [for entry in var.private_hosts : "${entry.host}:${entry.port}"])}."
  }

  validation {
    condition     = alltrue([for entry in var.private_hosts : try(cidrsubnet(entry.cidr, 0, 0) == entry.cidr, false)])
    error_message = "private_hosts holds something that is not a CIDR block with its host bits zero: ${join(", ", var.private_hosts[*].cidr)}. Write 10.0.0.0/16, not 10.0.3.7/16."
  }

  validation {
    # Two blocks overlap when their networks agree under the shorter of the two prefixes.
    condition = alltrue(flatten([
      for entry in var.private_hosts : [
        for never in local.never_private_cidrs : try(
          strcontains(entry.cidr, ":") != strcontains(never, ":") || (
            cidrhost(format("%s/%d", split("/", entry.cidr)[0], min(split("/", entry.cidr)[1], split("/", never)[1])), 0) !=
            cidrhost(format("%s/%d", split("/", never)[0], min(split("/", entry.cidr)[1], split("/", never)[1])), 0)
          ), true
        )
      ]
    ]))
    error_message = "private_hosts holds a CIDR block that takes in loopback, link-local, metadata or reserved addresses: ${join(", ", var.private_hosts[*].cidr)}. None may overlap ${join(", ", local.never_private_cidrs)}; give the VPC's own block."
  }
}

variable "provisioned_concurrency" {
  description = "Execution environments kept warm on the alias; 0 keeps none. They count inside the reserved concurrency."
  type        = number

  validation {
    condition     = var.provisioned_concurrency >= 0
    error_message = "provisioned_concurrency is ${var.provisioned_concurrency}; give 0 or more."
  }
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "reserved_concurrency" {
  description = "Most executions at a time, set aside from the account's quota. Null reserves nothing: new accounts have a quota of 10, from which nothing can be reserved."
  type        = number
  nullable    = true

  validation {
    condition     = var.reserved_concurrency == null ? true : var.reserved_concurrency >= 1
    error_message = "reserved_concurrency is ${coalesce(var.reserved_concurrency, 0)}, which lets nothing run; give 1 or more, or null to reserve nothing."
  }
}

variable "role_arn" {
  description = "ARN of the function's role. Its policies must be attached already, and hold no logs:CreateLogGroup."
  type        = string
}

variable "runtime" {
  description = "Lambda's Python runtime."
  type        = string
  default     = "python3.13"

  validation {
    condition     = can(regex("^python3\\.1[1-9]$", var.runtime))
    error_message = "runtime is ${var.runtime}; the handler needs python3.11 or newer."
  }
}

variable "security_group_id" {
  description = "ID of the function's security group."
  type        = string
}

variable "subnet_ids" {
  description = "IDs of the private subnets, with a route to the internet through NAT and none to an S3 gateway endpoint."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids holds ${length(var.subnet_ids)} subnets; give at least two, in different availability zones."
  }
}

variable "timeout_seconds" {
  description = "Longest run of one invocation, in seconds. The handler plans its picture fetch and its endpoint call within it; API Gateway waits no longer than 29."
  type        = number
  default     = 28

  validation {
    condition     = var.timeout_seconds >= 3 && var.timeout_seconds <= 900
    error_message = "timeout_seconds is ${var.timeout_seconds}; give 3 to 900 seconds."
  }
}
