terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
    }
  }
}

# Nothing but region and tags: credentials, endpoints and everything else about "where" is the environment's.
provider "aws" {
  region = var.region

  default_tags {
    tags = {
      Environment = var.environment
      Project     = var.name
      ManagedBy   = "terraform"
    }
  }
}
