variable "image_parameter" {
  description = "SSM parameter that names the machine image (Debian or Ubuntu, x86-64)."
  type        = string

  validation {
    condition     = startswith(var.image_parameter, "/")
    error_message = "image_parameter is \"${var.image_parameter}\": give the path of an SSM parameter, such as /aws/service/debian/release/12/latest/amd64."
  }
}

variable "instance_profile" {
  description = "Name of the instance profile that carries the trainer's role."
  type        = string
}

variable "instance_type" {
  description = "EC2 instance type the training runs on."
  type        = string

  validation {
    condition     = !startswith(var.instance_type, "ml.")
    error_message = "instance_type is \"${var.instance_type}\": the trainer is an EC2 box, not SageMaker; leave out \"ml.\"."
  }
}

variable "kms_key_arn" {
  description = "Key of the volume and the log group."
  type        = string
}

variable "log_retention_days" {
  description = "Days the log group keeps its events; a value CloudWatch Logs knows."
  type        = number
  default     = 365
}

variable "name" {
  description = "Prefix of every name; the group is <name>-trainer, its log group /<name>/trainer."
  type        = string
}

variable "security_group_id" {
  description = "Security group of the box; without an inbound rule."
  type        = string
}

variable "spot" {
  description = "Whether the box runs on spot capacity, which EC2 may take back at two minutes' notice; the group then starts another."
  type        = bool
  default     = false
}

variable "subnet_ids" {
  description = "Private subnets the box may start in."
  type        = list(string)
}

variable "user_data" {
  description = "Rendered cloud-init user-data, at most 16,384 bytes."
  type        = string
}

variable "volume_size_gib" {
  description = "Size of the root volume in GiB: image, packages, data set and checkpoints."
  type        = number
  default     = 64

  validation {
    condition     = var.volume_size_gib >= 16 && var.volume_size_gib <= 16384 && floor(var.volume_size_gib) == var.volume_size_gib
    error_message = "volume_size_gib is ${var.volume_size_gib}: give a whole number from 16 (torch alone takes several) to 16384."
  }
}
