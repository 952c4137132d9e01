variable "account_id" {
  description = "AWS account, twelve digits."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id is \"${var.account_id}\": give the twelve digits of the AWS account."
  }
}

variable "create_autoscaling_service_linked_role" {
  description = "Whether to make EC2 Auto Scaling's service-linked role, which the key policy names; true in an account that never had an Auto Scaling group, false elsewhere."
  type        = bool
  default     = false
}

variable "environment" {
  description = "local, development or prod; only outside prod do the buckets go away together with their content."
  type        = string

  validation {
    condition     = contains(["local", "development", "prod"], var.environment)
    error_message = "environment is \"${var.environment}\": use local, development or prod."
  }
}

variable "name" {
  description = "Prefix of the buckets' names and the key's alias."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,21}[a-z0-9]$", var.name))
    error_message = "name is \"${var.name}\": use 3 to 23 lower-case letters, digits and hyphens, beginning with a letter, so that bucket names stay within 63 characters."
  }
}

variable "partition" {
  description = "AWS partition: aws, aws-cn or aws-us-gov."
  type        = string
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "role_arns" {
  description = "ARN of each workload's role that uses the key: builder, hosting, lambda, notebook, trainer, training; others are ignored."
  type        = map(string)

  validation {
    condition     = length(setsubtract(["builder", "hosting", "lambda", "notebook", "trainer", "training"], keys(var.role_arns))) == 0
    error_message = "role_arns lacks ${join(", ", setsubtract(["builder", "hosting", "lambda", "notebook", "trainer", "training"], keys(var.role_arns)))}: pass module.iam's role_arns."
  }
}
