variable "artifact_bucket_arn" {
  description = "ARN of the artifact bucket, the one bucket of one's own that the S3 gateway endpoint admits."
  type        = string
}

variable "flow_log_role_arn" {
  description = "Role that delivers the VPC flow logs."
  type        = string
}

variable "interface_endpoints" {
  description = "Whether AWS APIs are reached through interface endpoints inside the VPC; without them the NAT gateways serve."
  type        = bool
  default     = true
}

variable "kms_key_arn" {
  description = "Key the flow logs are encrypted with."
  type        = string
}

variable "log_retention_days" {
  description = "Days the flow logs are kept; a value CloudWatch Logs knows."
  type        = number
  default     = 365
}

variable "name" {
  description = "Prefix of every name; the flow logs go to the log group /<name>/flow-logs."
  type        = string
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "vpc_cidr" {
  description = "IPv4 range of the VPC, from /16 to /24; each of its six subnets takes a sixteenth."
  type        = string

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 24, false)
    error_message = "vpc_cidr is \"${var.vpc_cidr}\": give an IPv4 range from /16 to /24, such as 10.20.0.0/16."
  }
}
